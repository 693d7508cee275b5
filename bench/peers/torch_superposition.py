"""Toy models of superposition as the notebook of Elhage et al. 2022 trains them, for bench/truth/superposition.ts.

    python torch_superposition.py '{"features": 5, "dimensions": 2, "importance": 0.9, "sparsities": [0, 0.9],
                                    "attempts": 1, "steps": 10000, "threads": 2}'

One model for each sparsity and attempt, all in one batched parameter; prints the weights and the loss of the best
attempt for each sparsity, and the seconds that the training took, as JSON.
"""

import json
import sys
import time

import torch

settings = json.loads(sys.argv[1])
torch.set_num_threads(settings["threads"])
torch.manual_seed(0)
n, m, attempts = settings["features"], settings["dimensions"], settings["attempts"]
sparsities = [s for s in settings["sparsities"] for _ in range(attempts)]
density = 1 - torch.tensor(sparsities)[:, None]
importance = settings["importance"] ** torch.arange(n)
BATCH = 1024

weights = torch.empty(len(sparsities), n, m)
for own in weights:
    torch.nn.init.xavier_normal_(own)
weights.requires_grad_()
bias = torch.zeros(len(sparsities), n, requires_grad=True)


def losses():
    shape = (BATCH, len(sparsities), n)
    x = torch.where(torch.rand(shape) <= density, torch.rand(shape), torch.zeros(()))
    hidden = torch.einsum("bgn,gnm->bgm", x, weights)
    out = torch.relu(torch.einsum("bgm,gnm->bgn", hidden, weights) + bias)
    return (importance * (x - out) ** 2).sum(-1).mean(0)


optimizer = torch.optim.AdamW([weights, bias], lr=1e-3)
start = time.perf_counter()
for _ in range(settings["steps"]):
    optimizer.zero_grad(set_to_none=True)
    losses().sum().backward()
    optimizer.step()
seconds = time.perf_counter() - start

with torch.no_grad():
    final = torch.stack([losses() for _ in range(32)]).mean(0)
models = []
for first in range(0, len(sparsities), attempts):
    best = first + int(final[first : first + attempts].argmin())
    models.append({"weights": weights[best].flatten().tolist(), "loss": final[best].item()})
print(json.dumps({"models": models, "seconds": seconds}))
