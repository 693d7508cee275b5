"""The other side of languageModels.ts: Hugging Face transformers, in float32, without gradients.

Speaks the protocol of sideBySide.ts, one JSON object a line: {"setup": {...}}, {"run": times}. The model, of random
weights, is written to the folder that both sides then load.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()

MODELS = {
    "gpt2-small": dict(model_type="gpt2"),
    "pythia-160m": dict(
        model_type="gpt_neox", hidden_size=768, num_attention_heads=12, num_hidden_layers=12, intermediate_size=3072,
        vocab_size=50304, max_position_embeddings=2048,
        rope_parameters=dict(rope_theta=10000.0, rope_type="default", partial_rotary_factor=0.25),
    ),
}


def build(model, work, attention, batch, positions, newTokens, threads, folder):
    torch.set_num_threads(threads)
    path = Path(folder) / model
    if not path.exists():
        torch.manual_seed(0)
        options = dict(MODELS[model])
        config = AutoConfig.for_model(options.pop("model_type"), **options)
        AutoModelForCausalLM.from_config(config).float().save_pretrained(path)
    loaded = AutoModelForCausalLM.from_pretrained(path, attn_implementation=attention, dtype=torch.float32).eval()
    blocks = loaded.transformer if model == "gpt2-small" else loaded.gpt_neox
    # The residual stream that leaves the last block; transformers goes on to the final norm, which costs little.
    layers, leaving = (blocks.h if model == "gpt2-small" else blocks.layers), {}
    layers[-1].register_forward_hook(
        lambda _module, _inputs, output: leaving.update(x=output[0] if isinstance(output, tuple) else output)
    )
    ids = (torch.arange(batch)[:, None] * 7919 + torch.arange(positions)[None, :] * 104729) % 50000
    prompt = torch.tensor([[1, 2, 3, 4]])

    @torch.no_grad()
    def forward():
        blocks(ids, use_cache=False)
        return leaving["x"].double().pow(2).mean().item()

    @torch.no_grad()
    def generate():
        tokens = loaded.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=newTokens, min_new_tokens=newTokens,
            do_sample=False, pad_token_id=0, eos_token_id=None,
        )
        return tokens.sum().item()

    return forward if work == "forward" else generate


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    work = None
    for line in sys.stdin:
        command = json.loads(line)
        if "setup" in command:
            work = build(**command["setup"])
            answer = {"check": work()}
        else:
            answer = {"wallMs": [], "cpuMs": []}
            for _ in range(command["run"]):
                cpu, wall = cpu_seconds(), time.perf_counter()
                work()
                answer["wallMs"].append((time.perf_counter() - wall) * 1e3)
                answer["cpuMs"].append((cpu_seconds() - cpu) * 1e3)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
