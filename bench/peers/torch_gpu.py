"""PyTorch's side of the GPU benchmark (bench/native/gpu): training steps on the same shapes, a JSON object a line.

    python3 bench/peers/torch_gpu.py [--quick | --tiny] [--device cuda] [--seconds 300]

  --quick    the smaller of the two shapes alone
  --tiny     a shape for a CPU, each case timed once: shows that everything runs
  --seconds  no case is begun after so many: those that are left stay without a line

A step is forward, backward, clip_grad_norm_ and Adam(fused=True), as in torch_sae.py, whose straight-through functions are
used; in bfloat16 autocast and in TF32 (`set_float32_matmul_precision("high")`), in up to three styles:

  autograd   written straightforwardly, dense
  compiled   the same loss under torch.compile
  sparse     TopK alone, by Triton kernels in the style of OpenAI's and EleutherAI's trainers: top-k of the dense
             pre-activations, a decoder that gathers k rows per token, and a backward pass that visits latents: the entries
             are sorted by latent, and each latent reads its rows of the activations and of the output's gradient once

Before it is timed, the sparse style's gradients are compared with autograd's, and a wrong one is not timed. On a CPU it
runs under TRITON_INTERPRET=1 alone. Beside the steps: the bare product x W^T (operands and result in bfloat16, or float32
by TF32) and a copy within the device's memory.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import time

import torch
import torch.nn.functional as F

from torch_sae import JumpReLU, Step

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

BANDWIDTH = 0.05  # of JumpReLU's estimators
SPARSITY = 1e-3


if triton is not None:

    @triton.jit
    def decode_kernel(features, values, weight, bias, out, k, width, BLOCK: tl.constexpr):
        """out[row] = bias + sum over the row's k entries of value * weight[feature], one block of columns a program."""
        row = tl.program_id(0)
        columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = columns < width
        sums = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
        for i in range(k):
            feature = tl.load(features + row * k + i)
            value = tl.load(values + row * k + i).to(tl.float32)
            sums += value * tl.load(weight + feature * width + columns, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + row * width + columns, sums, mask=inside)

    @triton.jit
    def decoder_backward_kernel(
        offsets, entries, values, weight, d_out, d_values, d_weight, k, width, BLOCK: tl.constexpr
    ):
        """Of one latent: d_weight = sum of value * d_out[row], and d_value = weight . d_out[row] of each of its entries."""
        latent = tl.program_id(0).to(tl.int64)
        columns = tl.arange(0, BLOCK)
        inside = columns < width
        own = tl.load(weight + latent * width + columns, mask=inside, other=0.0).to(tl.float32)
        sums = tl.zeros((BLOCK,), dtype=tl.float32)
        for i in range(tl.load(offsets + latent), tl.load(offsets + latent + 1)):
            entry = tl.load(entries + i)
            gradient = tl.load(d_out + (entry // k) * width + columns, mask=inside, other=0.0).to(tl.float32)
            tl.store(d_values + entry, tl.sum(own * gradient, axis=0))
            sums += tl.load(values + entry).to(tl.float32) * gradient
        tl.store(d_weight + latent * width + columns, sums, mask=inside)

    @triton.jit
    def encoder_backward_kernel(offsets, entries, d_values, x, d_weight, d_bias, k, width, BLOCK: tl.constexpr):
        """Of one latent: d_weight = sum of d_value * x[row], d_bias = sum of d_value."""
        latent = tl.program_id(0).to(tl.int64)
        columns = tl.arange(0, BLOCK)
        inside = columns < width
        sums = tl.zeros((BLOCK,), dtype=tl.float32)
        total = 0.0
        for i in range(tl.load(offsets + latent), tl.load(offsets + latent + 1)):
            entry = tl.load(entries + i)
            d_value = tl.load(d_values + entry)
            row = tl.load(x + (entry // k) * width + columns, mask=inside, other=0.0).to(tl.float32)
            sums += d_value * row
            total += d_value
        tl.store(d_weight + latent * width + columns, sums, mask=inside)
        tl.store(d_bias + latent, total)


class SparseTopK(torch.autograd.Function):
    """The reconstruction of x by its k largest latents; weights are [dSae, dIn], a row for each latent."""

    @staticmethod
    def forward(ctx, x, w_enc, b_enc, w_dec, b_dec, k):
        coarse = torch.is_autocast_enabled(x.device.type)
        rows, width = x.shape
        centred = x - b_dec
        values, features = F.linear(centred, w_enc, b_enc).topk(k, -1, sorted=False)
        values = torch.relu(values)
        if coarse:  # rows that are gathered have half the bytes then
            centred, w_dec = centred.bfloat16(), w_dec.bfloat16()
        out = torch.empty(rows, width, device=x.device)
        block = min(1024, triton.next_power_of_2(width))
        decode_kernel[(rows, triton.cdiv(width, block))](features, values, w_dec, b_dec, out, k, width, BLOCK=block)
        ctx.save_for_backward(centred, w_enc, w_dec, features, values)
        ctx.k, ctx.coarse = k, coarse
        return out

    @staticmethod
    def backward(ctx, d_out):
        centred, w_enc, w_dec, features, values = ctx.saved_tensors
        latents, width = w_enc.shape
        d_b_dec = d_out.sum(0)
        gathered = d_out.bfloat16() if ctx.coarse else d_out.contiguous()
        by_latent, entries = torch.sort(features.flatten().int())
        offsets = torch.searchsorted(by_latent, torch.arange(latents + 1, device=by_latent.device, dtype=torch.int32))
        d_values = torch.empty(values.numel(), device=d_out.device)
        d_w_dec, d_w_enc = torch.empty_like(w_enc), torch.empty_like(w_enc)
        d_b_enc = torch.empty(latents, device=d_out.device)
        block = triton.next_power_of_2(width)
        options = {"BLOCK": block, "num_warps": 8 if block > 1024 else 4}
        decoder_backward_kernel[(latents,)](
            offsets, entries, values, w_dec, gathered, d_values, d_w_dec, ctx.k, width, **options
        )
        d_values *= values.flatten() > 0
        encoder_backward_kernel[(latents,)](
            offsets, entries, d_values, centred, d_w_enc, d_b_enc, ctx.k, width, **options
        )
        return None, d_w_enc, d_b_enc, d_w_dec, d_b_dec - d_b_enc @ w_enc, None


def losses(parameters, x, k, l0):
    """The loss of each architecture, for weights [dSae, dIn] and of unit-variance pre-activations."""
    p = parameters
    squared_error = lambda output: (output - x).pow(2).sum(-1).mean()
    pre_activations = lambda: F.linear(x - p["b_dec"], p["w_enc"], p["b_enc"])
    decode = lambda latents: latents @ p["w_dec"] + p["b_dec"]
    penalty = lambda latents: SPARSITY * (latents * p["w_dec"].norm(dim=1)).sum(-1).mean()

    def topk():
        pre = pre_activations()
        values, features = pre.topk(k, -1, sorted=False)
        return squared_error(decode(torch.zeros_like(pre).scatter(-1, features, torch.relu(values))))

    def topk_sparse():
        return squared_error(SparseTopK.apply(x, p["w_enc"], p["b_enc"], p["w_dec"], p["b_dec"], k))

    def relu():
        latents = torch.relu(pre_activations())
        return squared_error(decode(latents)) + penalty(latents)

    def jumprelu():
        pre = pre_activations().float()
        latents = JumpReLU.apply(pre, p["threshold"], BANDWIDTH)
        active = Step.apply(pre, p["threshold"], BANDWIDTH).sum(-1)
        return squared_error(decode(latents)) + SPARSITY * ((active / l0 - 1) ** 2).mean()

    def gated():
        product = F.linear(x - p["b_dec"], p["w_enc"])
        gate = torch.relu(product + p["b_enc"])
        magnitudes = product * p["r_mag"].exp() + p["b_mag"]
        latents = (gate > 0) * torch.relu(magnitudes)
        auxiliary = gate @ p["w_dec"].detach() + p["b_dec"].detach()
        return squared_error(decode(latents)) + penalty(gate) + squared_error(auxiliary)

    return {"topk": topk, "topk sparse": topk_sparse, "relu": relu, "jumprelu": jumprelu, "gated": gated}


def make_parameters(architecture, shape, l0, device):
    _, width, latents = shape
    quantile = statistics.NormalDist().inv_cdf(1 - l0 / latents)
    weights = torch.randn(latents, width, device=device) / width**0.5
    bias = -quantile if architecture in ("relu", "gated") else 0.0
    vectors = {"b_enc": torch.full((latents,), bias, device=device), "b_dec": torch.zeros(width, device=device)}
    if architecture == "jumprelu":
        vectors["threshold"] = torch.full((latents,), quantile, device=device)
    if architecture == "gated":
        vectors |= {"r_mag": torch.zeros(latents, device=device), "b_mag": torch.zeros(latents, device=device)}
    tensors = {"w_enc": weights, "w_dec": weights.clone(), **vectors}
    return {name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()}


class Machine:
    def __init__(self, device, effort):
        self.device = device
        self.on_gpu = device.startswith("cuda")
        self.effort = effort

    def wait(self):
        if self.on_gpu:
            torch.cuda.synchronize()

    def seconds(self, runs, work):
        self.wait()
        start = time.perf_counter()
        for _ in range(runs):
            work()
        self.wait()
        return time.perf_counter() - start

    def timed(self, work):
        """Median, fastest and slowest of batches of runs, in ms; as in bench/native/gpu/timing.h."""
        batches, batch_seconds = self.effort
        self.seconds(2, work)
        runs = min(500, max(1, int(batch_seconds / (self.seconds(2, work) / 2))))
        times = [1e3 * self.seconds(runs, work) / runs for _ in range(batches)]
        return {
            "milliseconds": statistics.median(times), "fastest": min(times), "slowest": max(times),
            "batches": batches, "runs": runs,
        }

    def autocast(self, precision):
        return torch.autocast("cuda" if self.on_gpu else "cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16")


def emit(**line):
    print(json.dumps(line), flush=True)


def sparse_is_right(machine):
    """Whether the sparse style has autograd's loss and gradients, at a size with odd widths and empty latents."""
    torch.manual_seed(1)
    torch.set_float32_matmul_precision("highest")
    shape, k = (37, 45, 150), 5
    x = torch.randn(shape[0], shape[1], device=machine.device)
    parameters = make_parameters("topk", shape, 10, machine.device)
    torch.nn.init.normal_(parameters["b_dec"])
    results = []
    for name in ("topk", "topk sparse"):
        for parameter in parameters.values():
            parameter.grad = None
        loss = losses(parameters, x, k, 10)[name]()
        loss.backward()
        results.append([loss.detach(), *(parameter.grad.clone() for parameter in parameters.values())])
    error = max(((a - b).norm() / b.norm()).item() for b, a in zip(*results))
    emit(case="check", peer="sparse", error=error, allowed=1e-5, passed=error <= 1e-5)
    return error <= 1e-5


def bare(machine, shapes, copied):
    torch.manual_seed(0)
    for rows, width, latents in shapes:
        for precision, dtype in (("bfloat16", torch.bfloat16), ("tf32", torch.float32)):
            torch.set_float32_matmul_precision("high")
            x = torch.randn(rows, width, device=machine.device).to(dtype)
            weights = torch.randn(latents, width, device=machine.device).to(dtype)
            out = torch.empty(rows, latents, device=machine.device, dtype=dtype)
            timing = machine.timed(lambda: torch.mm(x, weights.t(), out=out))
            emit(case="product", peer="torch", precision=precision, rows=rows, dIn=width, dSae=latents, **timing,
                 operations=2 * rows * width * latents)
            del x, weights, out
    source = torch.randn(copied, device=machine.device)
    target = torch.empty_like(source)
    emit(case="copy", peer="torch", **machine.timed(lambda: target.copy_(source)), bytes=8 * copied)


def time_step(machine, architecture, style, precision, shape, k, l0):
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    x = torch.randn(shape[0], shape[1], device=machine.device)
    parameters = make_parameters(architecture, shape, l0, machine.device)
    optimizer = torch.optim.Adam(parameters.values(), lr=1e-6, fused=True)
    loss = losses(parameters, x, k, l0)["topk sparse" if style == "sparse" else architecture]
    if style == "compiled":
        torch._dynamo.reset()
        loss = torch.compile(loss, dynamic=False)

    def step():
        with machine.autocast(precision):
            value = loss()
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()

    step()
    if machine.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    timing = machine.timed(step)
    return timing | ({"peakBytes": torch.cuda.max_memory_allocated()} if machine.on_gpu else {})


def main():
    parser = argparse.ArgumentParser(description="PyTorch's side of the GPU benchmark; see the head of this file.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--seconds", type=float, default=300)
    options = parser.parse_args()
    start = time.perf_counter()
    shapes, k, l0, copied, effort = [(4096, 768, 24576), (4096, 2304, 65536)], 32, 100, 1 << 28, (9, 0.04)
    if options.quick:
        shapes = shapes[:1]
    if options.tiny:
        shapes, k, l0, copied, effort = [(48, 16, 128)], 4, 10, 1024, (1, 0)
    machine = Machine(options.device, effort)
    name = torch.cuda.get_device_name() if machine.on_gpu else "cpu"
    emit(case="about", peer="torch", torch=torch.__version__, device=name, triton=triton and triton.__version__)
    bare(machine, shapes, copied)

    can_sparse = triton is not None and (machine.on_gpu or os.environ.get("TRITON_INTERPRET") == "1")
    status = 0
    styles = {"topk": ["autograd", "compiled"], "relu": ["compiled"], "jumprelu": ["compiled"], "gated": ["compiled"]}
    if not can_sparse:
        print("the sparse style is left out: no Triton here, or no GPU and no TRITON_INTERPRET=1", file=sys.stderr)
    elif sparse_is_right(machine):
        styles["topk"].append("sparse")
    else:
        print("the sparse style's gradients are wrong: it is left out", file=sys.stderr)
        status = 1
    cases = [(a, style) for a in styles for style in styles[a]]
    cases += [(a, "autograd") for a in ("relu", "jumprelu", "gated")]
    for precision, shape in itertools.product(("bfloat16", "tf32"), shapes):
        for architecture, style in cases:
            if time.perf_counter() - start > options.seconds:
                print(f"out of time before {architecture}, {style}, {precision}, {shape}", file=sys.stderr)
                continue
            line = {"case": f"step {architecture}", "peer": style, "precision": precision}
            line |= {"rows": shape[0], "dIn": shape[1], "dSae": shape[2]}
            try:
                emit(**line, **time_step(machine, architecture, style, precision, shape, k, l0))
            except Exception as error:  # out of memory, or a compiler's: the others can still be timed
                emit(**line, failed=f"{type(error).__name__}: {error}"[:300])
            if machine.on_gpu:
                torch.cuda.empty_cache()
    return status


if __name__ == "__main__":
    sys.exit(main())
