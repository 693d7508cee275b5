"""SAELens' side of the comparison on synthetic data (bench/truth/synthetic.ts): trains one SAE on stored samples and
saves it as it would be used.

The only argument is a JSON object: activations (folder of safetensors shards), output, architecture ("standard",
"gated", "jumprelu", "topk", "batchtopk", "matryoshka"), value (the L1 coefficient of the first two, the L0 of the
others), samples, dIn, dSae, batchSize, lr, threads, matryoshkaWidths. The last line of the output is
  {"wallSeconds": ..., "cpuSeconds": ...}     of the training alone, reading the samples included

SAELens' defaults, and what arXiv:2602.14687 changed of them: L1 warm-up over a third of the steps; JumpReLU on inputs of
expected norm with bandwidth 1, threshold 1 at first and decoder norm 0.5. Unlike there, JumpReLU is told its L0 by the
quadratic loss, which SAELens takes per token (2 / L0 (l0 - L0)^2, here times 20 / L0).
"""

import json
import sys
import time
from pathlib import Path

import torch
from safetensors import safe_open
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAE,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer

ROWS_AT_ONCE = 65536
BATCHES_FOR_NORM = 8


class StoredSamples:
    """Batches of consecutive rows, beginning again after the last one."""

    def __init__(self, directory, batch_size):
        self.paths = sorted(Path(directory).glob("*.safetensors"))
        self.batch_size = batch_size
        self.rows = self.pieces()
        self.rest = torch.empty(0)

    def pieces(self):
        while True:
            for path in self.paths:
                with safe_open(path, framework="pt") as file:
                    tensor = file.get_slice("activations")
                    for first in range(0, tensor.get_shape()[0], ROWS_AT_ONCE):
                        yield tensor[first : first + ROWS_AT_ONCE]

    def __iter__(self):
        return self

    def __next__(self):
        parts, missing = [], self.batch_size
        while missing > 0:
            if len(self.rest) == 0:
                self.rest = next(self.rows)
            parts.append(self.rest[:missing])
            missing -= len(parts[-1])
            self.rest = self.rest[len(parts[-1]) :]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def build(options):
    steps = options["samples"] // options["batchSize"]
    value = options["value"]
    common = {"d_in": options["dIn"], "d_sae": options["dSae"], "device": "cpu", "dtype": "float32"}
    architecture = options["architecture"]
    if architecture == "standard":
        cfg = StandardTrainingSAEConfig(l1_coefficient=value, l1_warm_up_steps=steps // 3, **common)
        return StandardTrainingSAE(cfg)
    if architecture == "gated":
        cfg = GatedTrainingSAEConfig(l1_coefficient=value, l1_warm_up_steps=steps // 3, **common)
        return GatedTrainingSAE(cfg)
    if architecture == "jumprelu":
        cfg = JumpReLUTrainingSAEConfig(
            l0_coefficient=20 / value,
            target_l0=value,
            l0_warm_up_steps=steps // 3,
            jumprelu_bandwidth=1.0,
            jumprelu_init_threshold=1.0,
            jumprelu_sparsity_loss_mode="quadratic",
            normalize_activations="expected_average_only_in",
            decoder_init_norm=0.5,
            **common,
        )
        return JumpReLUTrainingSAE(cfg)
    if architecture == "topk":
        return TopKTrainingSAE(TopKTrainingSAEConfig(k=round(value), **common))
    if architecture == "batchtopk":
        return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=value, **common))
    if architecture == "matryoshka":
        cfg = MatryoshkaBatchTopKTrainingSAEConfig(k=value, matryoshka_widths=options["matryoshkaWidths"], **common)
        return MatryoshkaBatchTopKTrainingSAE(cfg)
    raise ValueError(f"unknown architecture {architecture}")


def main():
    options = json.loads(sys.argv[1])
    torch.set_num_threads(options["threads"])
    torch.manual_seed(0)
    sae = build(options)
    trainer = SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=options["samples"] // options["batchSize"] * options["batchSize"],
            train_batch_size_samples=options["batchSize"],
            lr=options["lr"],
            lr_end=options["lr"],
            device="cpu",
            logger=LoggingConfig(log_to_wandb=False, eval_every_n_wandb_logs=2**31 - 1),
            n_batches_for_norm_estimate=BATCHES_FOR_NORM,
        ),
        sae=sae,
        data_provider=StoredSamples(options["activations"], options["batchSize"]),
    )
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.fit()
    times = {"wallSeconds": time.perf_counter() - wall, "cpuSeconds": time.process_time() - cpu}
    sae.save_inference_model(options["output"])
    print(json.dumps(times))


if __name__ == "__main__":
    main()
