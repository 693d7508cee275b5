"""PyTorch's side of the side-by-side SAE benchmarks: a worker that is told over standard input what to set up and when
to run, so that its runs and monosem's alternate in one session on the same machine.

One JSON object a line in, one out:
  {"setup": {"variant": ..., "batch": 4096, "dIn": 768, "dSae": 8192, "k": 32, "density": 0.01, "threads": 2}} -> {"ready": true}
  {"run": 3} -> {"wallMs": [...], "cpuMs": [...]}      wall and CPU time (user + system, all threads) of each run
  {"peak": true} -> {"peakMiB": ..., "importMiB": ...} peak resident memory, and what importing torch alone took

Variants:
  encode       x @ W.T + b: the bare product of the encoder
  topk         forward, backward, clip_grad_norm_, Adam(fused=True): dense autograd, the straightforward step
  topk-sparse  the same step in the style of OpenAI's and EleutherAI's trainers: top-k, embedding-bag decode and a
               hand-written sparse backward (index_add in chunks of 256 tokens, so that it fits in memory)
  relu         ReLU + L1, dense autograd; the encoder bias is set so that `density` of the latents fire
"""

import json
import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F

IMPORT_KIB = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
CHUNK = 256


class SparseEncode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, k):
        values, indices = torch.addmm(bias, x, weight.t()).topk(k, -1, sorted=False)
        values = torch.relu(values)
        ctx.save_for_backward(x, weight, indices, values)
        return values, indices

    @staticmethod
    def backward(ctx, d_values, _):
        x, weight, indices, values = ctx.saved_tensors
        d_values = d_values * (values > 0)
        d_weight, d_bias = torch.zeros_like(weight), torch.zeros(weight.shape[0])
        for start in range(0, x.shape[0], CHUNK):
            part = slice(start, start + CHUNK)
            rows = (d_values[part].unsqueeze(2) * x[part].unsqueeze(1)).reshape(-1, x.shape[1])
            d_weight.index_add_(0, indices[part].reshape(-1), rows)
        d_bias.index_add_(0, indices.reshape(-1), d_values.reshape(-1))
        d_x = (d_bias @ weight) / x.shape[0]  # only its sum over tokens is used: the gradient of b_dec
        return d_x.expand_as(x), d_weight, d_bias, None


class SparseDecode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, indices, weight):
        ctx.save_for_backward(values, indices, weight)
        return F.embedding_bag(indices, weight, per_sample_weights=values, mode="sum")

    @staticmethod
    def backward(ctx, d_output):
        values, indices, weight = ctx.saved_tensors
        d_weight, d_values = torch.zeros_like(weight), torch.empty_like(values)
        for start in range(0, d_output.shape[0], CHUNK):
            part = slice(start, start + CHUNK)
            rows = (values[part].unsqueeze(2) * d_output[part].unsqueeze(1)).reshape(-1, d_output.shape[1])
            d_weight.index_add_(0, indices[part].reshape(-1), rows)
            d_values[part] = torch.bmm(weight[indices[part]], d_output[part].unsqueeze(2)).squeeze(2)
        return d_values, None, d_weight


def build(variant, batch, dIn, dSae, k=32, density=0.01, threads=2):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    x = torch.randn(batch, dIn)
    encoder = torch.randn(dSae, dIn) / dIn**0.5
    bias = torch.full((dSae,), -statistics.NormalDist().inv_cdf(1 - density)) if variant == "relu" else torch.zeros(dSae)
    if variant == "encode":

        def product():
            with torch.no_grad():
                torch.addmm(bias, x, encoder.t())

        return product

    rows = variant == "topk-sparse"  # the sparse backward wants a latent's encoder weights contiguous
    w_enc = torch.nn.Parameter(encoder if rows else encoder.t().contiguous())
    w_dec = torch.nn.Parameter(encoder.clone())
    b_enc, b_dec = torch.nn.Parameter(bias), torch.nn.Parameter(torch.zeros(dIn))
    parameters = [w_enc, w_dec, b_enc, b_dec]
    optimizer = torch.optim.Adam(parameters, lr=1e-6, fused=True)

    def step():
        sparsity = 0.0
        if variant == "topk-sparse":
            values, indices = SparseEncode.apply(x - b_dec, w_enc, b_enc, k)
            reconstruction = SparseDecode.apply(values, indices, w_dec) + b_dec
        else:
            pre = torch.addmm(b_enc, x - b_dec, w_enc)
            if variant == "relu":
                latents = torch.relu(pre)
                sparsity = 1e-3 * (latents * w_dec.norm(dim=1)).sum(-1).mean()
            else:
                values, indices = pre.topk(k, -1, sorted=False)
                latents = torch.zeros_like(pre).scatter(-1, indices, torch.relu(values))
            reconstruction = torch.addmm(b_dec, latents, w_dec)
        loss = (reconstruction - x).pow(2).sum(-1).mean() + sparsity
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    work = None
    for line in sys.stdin:
        command = json.loads(line)
        if "setup" in command:
            work = build(**command["setup"])
            answer = {"ready": True, "torch": torch.__version__}
        elif "run" in command:
            answer = {"wallMs": [], "cpuMs": []}
            for _ in range(command["run"]):
                cpu, wall = cpu_seconds(), time.perf_counter()
                work()
                answer["wallMs"].append((time.perf_counter() - wall) * 1e3)
                answer["cpuMs"].append((cpu_seconds() - cpu) * 1e3)
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            answer = {"peakMiB": peak / 1024, "importMiB": IMPORT_KIB / 1024}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
