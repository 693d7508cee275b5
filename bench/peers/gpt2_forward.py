"""PyTorch's side of modelForward.ts: a GPT-2 up to a layer, eager, in float32, without gradients.

Speaks the protocol of sideBySide.ts, one JSON object a line: {"setup": {...}}, {"run": times}, {"peak": true}.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

IMPORT_KIB = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def build(model, layers, batch, positions, threads):
    """The forward pass over fixed tokens, as a function; its result is the residual stream that enters layer `layers`."""
    torch.set_num_threads(threads)
    config = json.loads((Path(model) / "config.json").read_text())
    width, heads = config["n_embd"], config["n_head"]
    weights = {
        # Conv1D stores [in, out]; torch.nn.Linear, the usual module, [out, in].
        name.removeprefix("transformer."): tensor.float().T.contiguous() if ".c_" in name and tensor.dim() == 2 else tensor.float()
        for name, tensor in load_file(Path(model) / "model.safetensors").items()
    }

    def linear(x, name):
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def layer_norm(x, name):
        return F.layer_norm(x, (width,), weights[f"{name}.weight"], weights[f"{name}.bias"], config["layer_norm_epsilon"])

    ids = (torch.arange(batch)[:, None] * 7919 + torch.arange(positions)[None, :] * 104729) % config["vocab_size"]

    @torch.no_grad()
    def forward():
        x = weights["wte.weight"][ids] + weights["wpe.weight"][:positions]
        for layer in range(layers):
            h = f"h.{layer}"
            qkv = linear(layer_norm(x, f"{h}.ln_1"), f"{h}.attn.c_attn").split(width, -1)
            q, k, v = (t.view(batch, positions, heads, width // heads).transpose(1, 2) for t in qkv)
            z = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, positions, width)
            x = x + linear(z, f"{h}.attn.c_proj")
            hidden = F.gelu(linear(layer_norm(x, f"{h}.ln_2"), f"{h}.mlp.c_fc"), approximate="tanh")
            x = x + linear(hidden, f"{h}.mlp.c_proj")
        return x

    return forward


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    forward = None
    for line in sys.stdin:
        command = json.loads(line)
        if "setup" in command:
            forward = build(**command["setup"])
            answer = {"torch": torch.__version__, "meanSquare": forward().double().pow(2).mean().item()}
        elif "run" in command:
            answer = {"wallMs": [], "cpuMs": []}
            for _ in range(command["run"]):
                cpu, wall = cpu_seconds(), time.perf_counter()
                forward()
                answer["wallMs"].append((time.perf_counter() - wall) * 1e3)
                answer["cpuMs"].append((cpu_seconds() - cpu) * 1e3)
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            answer = {"peakMiB": peak / 1024, "importMiB": IMPORT_KIB / 1024}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
