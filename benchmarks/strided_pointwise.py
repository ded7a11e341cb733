"""Which strided 1x1 convolutions PyTorch differentiates wrongly on this processor, in plain PyTorch.

    python benchmarks/strided_pointwise.py

For each instruction set that oneDNN can be held to, input channels, image size, layout and number of threads: forward
and backward several times, against the same in float64 without oneDNN. All cases of one instruction set run in one
process, which is started again where it dies. A row is a case that is wrong: it says by which signal the process died,
or the largest error of a gradient over its largest value. `pliant` avoids every case that is named here
(src/pliant/core/pointwise.py). Writes results/strided_pointwise.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from provenance import write_result
from torch import Tensor

INSTRUCTION_SETS = {
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "avx512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "all of this processor": {},
}
CHANNELS = (1, 2, 4, 7, 8, 12, 16)
IMAGES = ((64, 16), (4, 112))  # batch and pixels of a side
REPEATS, PATIENCE_S, TOLERANCE = 8, 60, {"float32": 1e-4, "bfloat16": 0.1}


def cases() -> Iterator[dict[str, Any]]:
    """What is tried with each instruction set."""
    kinds = [
        {"layout": "channels_last", "weight": "own", "stride": 2, "dtype": "float32"},
        {"layout": "channels_last", "weight": "slice", "stride": 2, "dtype": "float32"},
        {"layout": "channels_last", "weight": "own", "stride": 2, "dtype": "bfloat16"},
        {"layout": "contiguous", "weight": "own", "stride": 2, "dtype": "float32"},
        {"layout": "channels_last", "weight": "own", "stride": 1, "dtype": "float32"},
    ]
    for kind, (batch, size), channels, threads in itertools.product(kinds, IMAGES, CHANNELS, (1, 2)):
        yield {**kind, "batch": batch, "size": size, "channels": channels, "threads": threads}


def run(case: dict[str, Any]) -> float:
    """The largest error of the output and both gradients, over their largest value, of several passes."""
    torch.set_num_threads(case["threads"])
    torch.manual_seed(0)
    channels, dtype = case["channels"], getattr(torch, case["dtype"])
    x = torch.randn(case["batch"], channels, case["size"], case["size"]).to(dtype)
    weight = torch.randn(8 * channels, 4 * channels, 1, 1).to(dtype)
    with torch.backends.mkldnn.flags(enabled=False):
        expected = passes(x.double(), weight[: 2 * channels, :channels].double(), case["stride"])
    if case["layout"] == "channels_last":
        x, weight = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, weight))
    weight = weight[: 2 * channels, :channels]
    if case["weight"] == "own":
        like = torch.channels_last if case["layout"] == "channels_last" else torch.contiguous_format
        weight = weight.clone(memory_format=like)
    errors = [
        (got.double() - right).abs().max() / right.abs().max()
        for _ in range(REPEATS)
        for got, right in zip(passes(x, weight, case["stride"]), expected, strict=True)
    ]
    return torch.stack(errors).nan_to_num(torch.inf).max().item()


def passes(x: Tensor, weight: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Output, and gradients of the input and the weight."""
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    output = F.conv2d(x, weight, stride=stride)
    output.backward(torch.linspace(-1, 1, output.numel()).view(output.shape).to(output.dtype))
    assert x.grad is not None and weight.grad is not None
    return output.detach(), x.grad, weight.grad


def answer_cases() -> None:
    """Read cases as lines from the standard input, and write the error of each."""
    for line in sys.stdin:
        print(run(json.loads(line)), flush=True)


def outcomes(environment: dict[str, str]) -> Iterator[tuple[dict[str, Any], str | float]]:
    """Yield each case with its error, or with what became of the process."""
    process = None
    for case in cases():
        for _ in range(2):  # a busy machine may take long for once
            process = process or started(environment)
            outcome = outcome_of(case, process)
            if isinstance(outcome, str):
                process = None
            if outcome != "hangs":
                break
        yield case, outcome
    if process:
        process.communicate()


def started(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", __file__, "--answer"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=os.environ | environment,
    )  # fmt: skip


def outcome_of(case: dict[str, Any], process: subprocess.Popen[str]) -> str | float:
    """The error of a case, the signal by which the process died, or `hangs`, after which it is ended."""
    assert process.stdin and process.stdout
    process.stdin.write(json.dumps(case) + "\n")
    process.stdin.flush()
    answered = select.select([process.stdout], [], [], PATIENCE_S)[0]
    answer = process.stdout.readline() if answered else ""
    if answer:
        return float(answer)
    if not answered:
        process.kill()
    code = process.wait()
    return signal.Signals(-code).name if answered else "hangs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="results/strided_pointwise.json")
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.answer:
        answer_cases()
        return
    tried: dict[str, int] = {}
    rows = []
    for name, environment in INSTRUCTION_SETS.items():
        for case, outcome in outcomes(environment):
            tried[name] = tried.get(name, 0) + 1
            if isinstance(outcome, str) or outcome > TOLERANCE[case["dtype"]]:
                rows.append({"instructions": name, **case, "outcome": outcome})
                print(rows[-1], flush=True)
    document = {"repeats": REPEATS, "tolerance": TOLERANCE, "channels": CHANNELS, "tried": tried, "wrong": rows}
    write_result(arguments.out, document)


if __name__ == "__main__":
    main()
