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
  batchtopk, matryoshka, jumprelu, gated
               dense autograd with the operations of SAELens 6.54's training forward pass: one top-k over the flattened
               batch; two more decoder products for the inner of three levels; its straight-through functions and the
               quadratic penalty; three encoder and two decoder products. Latents are not rescaled by the decoder norms
  soft-gated   sigmoid(gate) * ReLU(magnitude), each with an encoder of its own, dense autograd
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


def rectangle(x):
    return ((x > -0.5) & (x < 0.5)).to(x)


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, threshold, bandwidth):
        ctx.save_for_backward(x, threshold)
        ctx.bandwidth = bandwidth
        return (x > threshold).to(x)

    @staticmethod
    def backward(ctx, gradient):
        x, threshold = ctx.saved_tensors
        ste = (1 / ctx.bandwidth) * rectangle((x - threshold) / ctx.bandwidth) * gradient
        return None, torch.sum(-ste, dim=0), None


class JumpReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, threshold, bandwidth):
        ctx.save_for_backward(x, threshold)
        ctx.bandwidth = bandwidth
        return (x * (x > threshold)).to(x)

    @staticmethod
    def backward(ctx, gradient):
        x, threshold = ctx.saved_tensors
        ste = (threshold / ctx.bandwidth) * rectangle((x - threshold) / ctx.bandwidth) * gradient
        return (x > threshold) * gradient, torch.sum(-ste, dim=0), None


def build(variant, batch, dIn, dSae, k=32, density=0.01, threads=2):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    x = torch.randn(batch, dIn)
    encoder = torch.randn(dSae, dIn) / dIn**0.5
    quantile = statistics.NormalDist().inv_cdf(1 - density) if 0 < density < 1 else 0.0
    bias = torch.full((dSae,), -quantile) if variant in ("relu", "gated") else torch.zeros(dSae)
    if variant == "encode":

        def product():
            with torch.no_grad():
                torch.addmm(bias, x, encoder.t())

        return product

    rows = variant == "topk-sparse"  # the sparse backward wants a latent's encoder weights contiguous
    w_enc = torch.nn.Parameter(encoder if rows else encoder.t().contiguous())
    w_dec = torch.nn.Parameter(encoder.clone())
    b_enc, b_dec = torch.nn.Parameter(bias), torch.nn.Parameter(torch.zeros(dIn))
    own = {
        "gated": lambda: [torch.nn.Parameter(torch.zeros(dSae)), torch.nn.Parameter(torch.zeros(dSae))],
        "soft-gated": lambda: [torch.nn.Parameter(w_enc.detach().clone()), torch.nn.Parameter(torch.zeros(dSae))],
        "jumprelu": lambda: [torch.nn.Parameter(torch.full((dSae,), quantile))],
    }.get(variant, list)()
    parameters = [w_enc, w_dec, b_enc, b_dec, *own]
    optimizer = torch.optim.Adam(parameters, lr=1e-6, fused=True)
    widths = [dSae // 16, dSae // 4]  # of matryoshka's inner levels
    target_l0, bandwidth = density * dSae, 0.05
    threshold_mean = torch.zeros((), dtype=torch.float64)

    def squared_error(output):
        return (output - x).pow(2).sum(-1).mean()

    def top_k():
        pre = torch.addmm(b_enc, x - b_dec, w_enc)
        values, indices = pre.topk(k, -1, sorted=False)
        latents = torch.zeros_like(pre).scatter(-1, indices, torch.relu(values))
        return squared_error(torch.addmm(b_dec, latents, w_dec))

    def top_k_sparse():
        values, indices = SparseEncode.apply(x - b_dec, w_enc, b_enc, k)
        return squared_error(SparseDecode.apply(values, indices, w_dec) + b_dec)

    def relu():
        latents = torch.relu(torch.addmm(b_enc, x - b_dec, w_enc))
        sparsity = (latents * w_dec.norm(dim=1)).sum(-1).mean()
        return squared_error(torch.addmm(b_dec, latents, w_dec)) + 1e-3 * sparsity

    def batch_top_k():
        nonlocal threshold_mean
        flat = torch.relu((x - b_dec) @ w_enc + b_enc).flatten()
        top = torch.topk(flat, k * batch)
        latents = torch.zeros_like(flat).scatter(-1, top.indices, top.values).reshape(batch, dSae)
        with torch.no_grad():
            threshold_mean = 0.99 * threshold_mean + 0.01 * latents[latents > 0].min()
        loss = squared_error(latents @ w_dec + b_dec)
        if variant == "matryoshka":
            decoded = b_dec
            for first, last in zip([0, *widths], widths):
                decoded = latents[:, first:last] @ w_dec[first:last] + decoded
                loss = loss + squared_error(decoded)
        return loss

    def jump_relu():
        (threshold,) = own
        pre = (x - b_dec) @ w_enc + b_enc
        latents = JumpReLU.apply(pre, threshold, bandwidth)
        l0 = Step.apply(pre, threshold, bandwidth).sum(-1)
        sparsity = (1e-3 * 2 / target_l0 * (l0 - target_l0) ** 2).mean()
        return squared_error(latents @ w_dec + b_dec) + sparsity

    def gated():
        r_mag, b_mag = own
        open_gates = ((x - b_dec) @ w_enc + b_enc > 0).to(x)
        magnitudes = (x - b_dec) @ (w_enc * r_mag.exp()) + b_mag
        latents = open_gates * torch.relu(magnitudes)
        gate = torch.relu((x - b_dec) @ w_enc + b_enc)
        sparsity = (gate * w_dec.norm(dim=1)).sum(-1).mean()
        return squared_error(latents @ w_dec + b_dec) + 1e-3 * sparsity + squared_error(gate @ w_dec + b_dec)

    def soft_gated():
        w_gate, b_gate = own
        gate = torch.sigmoid((x - b_dec) @ w_gate + b_gate)
        latents = gate * torch.relu((x - b_dec) @ w_enc + b_enc)
        return squared_error(latents @ w_dec + b_dec) + 1e-3 * (gate * w_dec.norm(dim=1)).sum(-1).mean()

    loss_of = {
        "topk": top_k, "topk-sparse": top_k_sparse, "relu": relu, "batchtopk": batch_top_k, "matryoshka": batch_top_k,
        "jumprelu": jump_relu, "gated": gated, "soft-gated": soft_gated,
    }[variant]

    def step():
        loss = loss_of()
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
