"""The table of scripts/gpu-verify: what its parts have printed, a JSON object a line, as Markdown for RESULTS.md and as JSON.

    python3 bench/gpu_table.py LINES.jsonl FOLDER      writes FOLDER/gpu.md and FOLDER/gpu.json, prints the former

Every number comes from a line; what no line tells is "not measured". Lines, by their `case`:

  about                    of the machine (peer: absent) and of PyTorch (peer: torch)
  verify                   a step of gpu-verify: step, status, seconds, reason
  parity                   gpu_tests in one precision: passed, failed, error, allowed
  training                 bench/trainingParity.ts: architecture, found, tolerance, passed
  copy, product            by bench_gpu, and by PyTorch (peer: torch)
  encode, decode, ...      kernels by bench_gpu: milliseconds, phases [operations, bytes]
  step ARCHITECTURE        by bench_gpu, and by PyTorch (peer: its style)

The least time of a kernel or step is the sum over its phases of what takes longer: its operations at the rate of the bare
product in that precision, or its bytes at the rate of the copy. Rates are the best measured in the same run, whoever
measured them. A phase whose gathered rows come from the cache can be faster than that.
"""

import json
import os
import sys

ABSENT = "not measured"
SMALL, LARGE = (4096, 768, 24576), (4096, 2304, 65536)
STYLES = ("autograd", "compiled", "sparse")


class Measured:
    def __init__(self, lines):
        self.lines = lines

    def all(self, **wanted):
        """Lines with these values; None: the key must be absent."""
        return [line for line in self.lines if all(line.get(key) == value for key, value in wanted.items())]

    def one(self, **wanted):
        found = self.all(**wanted)
        return found[-1] if found else None

    def milliseconds(self, case, shape, precision, peer=None):
        line = self.one(case=case, precision=precision, peer=peer, **shape_keys(shape))
        return line.get("milliseconds") if line else None

    def bandwidth(self):
        """Bytes per ms."""
        rates = [bytes_of(line) / line["milliseconds"] for line in self.all(case="copy")]
        return max(rates, default=None)

    def product_rate(self, shape, precision):
        """Operations per ms."""
        lines = self.all(case="product", precision=precision, **shape_keys(shape))
        return max((operations_of(line) / line["milliseconds"] for line in lines), default=None)

    def least(self, line):
        """The least time in ms; None where a rate is unknown."""
        bandwidth = self.bandwidth()
        rate = self.product_rate(shape_of(line), line["precision"])
        total = 0
        for operations, size in line["phases"]:
            if bandwidth is None or (operations > 0 and rate is None):
                return None
            total += max(operations / rate if operations > 0 else 0, size / bandwidth)
        return total

    def shapes(self):
        found = {shape_of(line) for line in self.lines if "dSae" in line and line["case"] not in ("copy", "product", "attention")}
        return sorted(found, key=lambda shape: shape[1] * shape[2])


def shape_keys(shape):
    return dict(zip(("rows", "dIn", "dSae"), shape))


def shape_of(line):
    return line["rows"], line["dIn"], line["dSae"]


def operations_of(line):
    return line["operations"] if "operations" in line else sum(operations for operations, _ in line["phases"])


def bytes_of(line):
    return line["bytes"] if "bytes" in line else sum(size for _, size in line["phases"])


def name_of(shape):
    rows, width, latents = shape
    return f"{rows} x {width} -> {latents}"


def number(value, unit="", digits=3):
    return ABSENT if value is None else f"{value:.{digits}g}{unit}"


def time_of(value):
    return ABSENT if value is None else f"{value:.3f}"


def ratio_of(numerator, denominator):
    return None if numerator is None or denominator is None else numerator / denominator


def percent(share):
    return ABSENT if share is None else f"{100 * share:.0f} %"


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows] + [""]


def about(measured):
    machine = measured.one(case="about", peer=None) or {}
    torch = measured.one(case="about", peer="torch") or {}
    told = ", ".join(str(machine[key]) for key in ("gpu", "driver", "cuda", "cublas") if machine.get(key))
    lines = [f"Machine: {told or ABSENT}. {machine.get('date', '')}".strip(), ""]
    versions = [f"{name} {torch[name]}" for name in ("torch", "triton") if torch.get(name)]
    lines += [f"PyTorch's side: {', '.join(versions) or ABSENT}.", ""]
    bandwidth = measured.bandwidth()
    gigabytes = None if bandwidth is None else bandwidth / 1e6
    rates = [f"copy {number(gigabytes, ' GB/s', 4)} (bytes read and written)"]
    for shape in measured.shapes():
        for precision in ("bfloat16", "tf32", "float32"):
            rate = measured.product_rate(shape, precision)
            teraflops = None if rate is None else rate / 1e9
            rates.append(f"product {name_of(shape)} in {precision} {number(teraflops, ' TFLOP/s')}")
    return lines + ["Rates: " + "; ".join(rates) + ".", ""]


def verification(measured):
    steps = [
        [line["step"], line["status"] + (f": {line['reason']}" if line.get("reason") else ""), str(line["seconds"])]
        for line in measured.all(case="verify")
    ]
    parity = []
    for precision in ("float32", "tf32", "bfloat16"):
        line = measured.one(case="parity", precision=precision)
        if line is None:
            parity.append([precision, ABSENT, ABSENT, ABSENT])
        else:
            checks = f"{line['passed']} passed, {line['failed']} failed"
            parity.append([precision, checks, f"{line['error']:.1e}", f"{line['allowed']:.0e}"])
    training = []
    for line in measured.all(case="training"):
        found, allowed = line["found"], line["tolerance"]
        cells = [f"{found[kind]:.1e} (allowed {allowed[kind]:.1e})" for kind in ("losses", "parameters")]
        training.append([line["architecture"], str(line["steps"]), *cells, "passed" if line["passed"] else "failed"])
    return [
        *table(["step", "result", "seconds"], steps or [[ABSENT] * 3]),
        "Kernels beside their definitions in float64; products judged relative to the sum of their absolute terms:",
        "",
        *table(["precision", "checks", "relative error of products", "allowed"], parity),
        "Training on the GPU beside the CPU, float32, largest relative differences:",
        "",
        *table(["architecture", "steps", "losses", "parameters", "result"], training or [[ABSENT] * 5]),
    ]


def kernels(measured):
    rows = []
    for line in measured.lines:
        if "phases" not in line or line["case"].startswith("step ") or line["case"] == "copy":
            continue
        least = measured.least(line)
        work = f"{operations_of(line) / 1e9:.1f} / {bytes_of(line) / 1e6:.1f}"
        cells = [time_of(line["milliseconds"]), work, time_of(least), percent(ratio_of(least, line["milliseconds"]))]
        rows.append([name_of(shape_of(line)), line["case"], line["precision"], *cells])
    header = ["shape", "kernel", "precision", "ms", "GFLOP / MB", "least ms", "share of the roofline"]
    return ["Kernels:", "", *table(header, rows or [[ABSENT] * len(header)])]


def steps(measured):
    rows = []
    for line in measured.lines:
        if not line["case"].startswith("step ") or line.get("peer") is not None:
            continue
        own, least = line["milliseconds"], measured.least(line)
        cells, times = [], {}
        for style in STYLES:
            peer = measured.one(case=line["case"], precision=line["precision"], peer=style, **shape_keys(shape_of(line)))
            times[style] = (peer or {}).get("milliseconds")
            cells.append("failed" if peer and "failed" in peer else time_of(times[style]))
        known = [time for time in times.values() if time is not None]
        best = f"{min(known) / own:.2f}" if known else ABSENT
        peak = f"{line['peakBytes'] / 2**20:.0f}" if "peakBytes" in line else ABSENT
        work = f"{operations_of(line) / 1e9:.1f} / {bytes_of(line) / 1e6:.0f}"
        mine = [time_of(own), work, time_of(least), percent(ratio_of(least, own))]
        rows.append([name_of(shape_of(line)), line["case"][5:], line["precision"], *mine, *cells, best, peak])
    header = ["shape", "step", "precision", "monosem, ms", "GFLOP / MB", "least ms", "share of the roofline"]
    header += [f"PyTorch {style}, ms" for style in STYLES] + ["best PyTorch / monosem", "peak, MiB"]
    note = "Bytes count a gathered row for each entry, most of which come from the cache: so much of the roofline is not as much of the memory's bandwidth."
    return ["Training steps:", "", *table(header, rows or [[ABSENT] * len(header)]), "", note]


def peers(measured, case, shape, styles=STYLES):
    """The times of the styles that were measured, in bfloat16."""
    times = {style: measured.milliseconds(case, shape, "bfloat16", style) for style in styles}
    return {style: time for style, time in times.items() if time is not None}


def best_peer(measured, case, shape, styles=STYLES):
    return min(peers(measured, case, shape, styles).values(), default=None)


def wanted(measured):
    """Dicts of what was wanted, the measured value and whether it reaches the limit; bfloat16."""
    rows = []

    def want(what, value, limit, at_most, unit):
        reached = None if value is None else value <= limit if at_most else value >= limit
        rows.append({"what": what, "value": value, "limit": limit, "atMost": at_most, "unit": unit, "reached": reached})

    own = lambda case, shape: measured.milliseconds(case, shape, "bfloat16")
    for shape, limit in ((SMALL, 0.7), (LARGE, 4.5)):
        want(f"TopK step, {name_of(shape)}", own("step topk", shape), limit, True, "ms")
    ratio = ratio_of(best_peer(measured, "step topk", SMALL), own("step topk", SMALL))
    among = ", ".join(peers(measured, "step topk", SMALL)) or "none"
    want(f"the best PyTorch style's time / monosem's, TopK step, {name_of(SMALL)} (of {among})", ratio, 2, False, "x")
    for shape in (SMALL, LARGE):
        product = measured.milliseconds("product", shape, "bfloat16", "torch")
        share = ratio_of(product, own("encode", shape))
        want(f"encode, of the rate of the bare product (bfloat16 operands and result), {name_of(shape)}", share, 0.8, False, "%")
    for shape in (SMALL, LARGE):
        for case in ("decode", "rowStep encoder", "rowStep decoder"):
            line = measured.one(case=case, precision="bfloat16", peer=None, **shape_keys(shape))
            bandwidth = measured.bandwidth()
            share = None if line is None or bandwidth is None else bytes_of(line) / line["milliseconds"] / bandwidth
            want(f"{case}, of the copy's bandwidth, {name_of(shape)}", share, 0.7, False, "%")
    for shape in (SMALL, LARGE):
        for architecture in ("relu", "jumprelu", "gated"):
            case = f"step {architecture}"
            ratio = ratio_of(best_peer(measured, case, shape, ("compiled",)), own(case, shape))
            want(f"compiled PyTorch's time / monosem's, {architecture} step at L0 100, {name_of(shape)}", ratio, 2.5, False, "x")
    return rows


def wanted_table(rows):
    def shown(value, unit):
        return percent(value) if unit == "%" else number(value, f" {unit}" if unit == "ms" else "")

    verdicts = {None: ABSENT, True: "yes", False: "**no**"}
    cells = [
        [
            row["what"],
            ("<= " if row["atMost"] else ">= ") + shown(row["limit"], row["unit"]),
            shown(row["value"], row["unit"]),
            verdicts[row["reached"]],
        ]
        for row in rows
    ]
    return ["What was wanted of an H200, in bfloat16:", "", *table(["", "wanted", "measured", "reached"], cells)]


def main():
    file, folder = sys.argv[1:]
    with open(file, encoding="utf8") as lines:
        measured = Measured([json.loads(line) for line in lines])
    rows = wanted(measured)
    markdown = ["## On a GPU", "", *about(measured), *wanted_table(rows), *steps(measured), *kernels(measured)]
    markdown += verification(measured)
    text = "\n".join(markdown).rstrip() + "\n"
    for name, content in (("gpu.md", text), ("gpu.json", json.dumps({"wanted": rows, "lines": measured.lines}, indent=1))):
        temporary = os.path.join(folder, f".{name}.tmp")
        with open(temporary, "w", encoding="utf8") as out:
            out.write(content)
        os.replace(temporary, os.path.join(folder, name))
    print(text, end="")


if __name__ == "__main__":
    main()
