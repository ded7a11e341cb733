"""How much faster the base-net is than the super-net in each runtime, beside how much less it computes.

    python benchmarks/runtimes.py [--rounds 40] [--threads 2] [--models torchvision:resnet50] [--runtimes openvino]

Random weights, 224 pixels, batch 1, on the CPU. For every network, and every runtime that is installed, a file of the
base-net and one of the super-net, in float32 and, where the runtime has it, int8 (calibrated on random numbers: its
answers mean nothing here, its time does); of runtimes that switch, one switchable file as well:

- `base_ms`, `super_ms`: medians over rounds in which all files of a network take turns, in a new order each time;
- `latency_ratio`: base over super, round by round, because a machine that slows down meanwhile slows both alike;
- `macs_ratio`: the same of multiply-accumulates, which no runtime can promise;
- `switched_ratio`: the latency ratio within the switchable file: near 1 were both branches of a condition run.

Runtimes that are not installed are named and left out. Writes results/runtimes.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from networks import adapted
from provenance import write_result
from timing import median_ratio, timing_parser

import pliant
import pliant.runtime
from pliant.core.adaptive import AdaptiveModule
from pliant.core.macs import count_gmacs
from pliant.measure.latency import interleaved_ms, using_threads
from pliant.runtime.runtimes import RUNTIMES, Runtime

MODELS = ("torchvision:resnet50", "torchvision:mobilenet_v2")
IMAGE_SIZE = 224
CALIBRATION_IMAGES = 16


def write_files(model: AdaptiveModule, runtime: Runtime, folder: Path) -> list[str]:
    """Write the files of a runtime, and return their names."""
    ends = {"base": model.space.smallest, "super": model.space.largest}
    wanted: dict[str, dict[str, Any]] = {f"float32_{role}": {"subnet": subnet} for role, subnet in ends.items()}
    if runtime.quantized:
        images = [torch.randn(CALIBRATION_IMAGES, 3, IMAGE_SIZE, IMAGE_SIZE)]
        # Random weights have no opinions, and so the two need not agree on the largest.
        quantized = {"calibrate_on": images, "tolerance": 1.0}
        wanted |= {f"int8_{role}": {"subnet": subnet, **quantized} for role, subnet in ends.items()}
    if runtime.switches:
        wanted["switchable"] = {"switchable": "fast"}
    for name, options in wanted.items():
        path = folder / f"{runtime.name}_{name}{runtime.ending}"
        pliant.export(model, path, runtime=runtime.name, image_size=IMAGE_SIZE, **options)
    return list(wanted)


def calls_of(model: AdaptiveModule, runtime: Runtime, folder: Path, threads: int) -> dict[str, Callable[[], Any]]:
    """Return what runs each file of a runtime once, a switchable one for both ends."""
    images = torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE).numpy()
    calls: dict[str, Callable[[], Any]] = {}
    for name in write_files(model, runtime, folder):
        file = pliant.runtime.load(
            folder / f"{runtime.name}_{name}{runtime.ending}", runtime=runtime.name, threads=threads
        )
        if name == "switchable":
            calls |= {"switched_base": partial(file, images, file.subnets[0])}
            calls |= {"switched_super": partial(file, images, file.subnets[-1])}
        else:
            calls[name] = partial(file, images)
    return {f"{runtime.name}_{name}": call for name, call in calls.items()}


def compare(name: str, runtimes: Sequence[Runtime], rounds: int, threads: int) -> list[dict[str, Any]]:
    """Time all files of a network in one run; one row for each runtime and precision."""
    model = adapted(name, pliant.Depth(), IMAGE_SIZE)
    ends = [pliant.extract(model, subnet, share=True) for subnet in (model.space.smallest, model.space.largest)]
    base, largest = (count_gmacs(network, IMAGE_SIZE) for network in ends)
    with tempfile.TemporaryDirectory() as folder:
        calls: dict[str, Callable[[], Any]] = {}
        for runtime in runtimes:
            calls |= calls_of(model, runtime, Path(folder), threads)
        times = interleaved_ms(calls, rounds=rounds, warmup=3)
    rows = []
    for runtime in runtimes:
        for precision in ("float32", "int8"):
            pair = [f"{runtime.name}_{precision}_{role}" for role in ("base", "super")]
            if pair[0] not in times:
                continue
            row: dict[str, Any] = {"model": name, "runtime": runtime.name, "precision": precision}
            row |= {"base_ms": statistics.median(times[pair[0]]), "super_ms": statistics.median(times[pair[1]])}
            row |= {"latency_ratio": median_ratio(times, *pair), "macs_ratio": base / largest}
            switched = [f"{runtime.name}_switched_{role}" for role in ("base", "super")]
            if precision == "float32" and switched[0] in times:
                row["switched_ratio"] = median_ratio(times, *switched)
            rows.append({key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()})
    return rows


def main() -> None:
    parser: argparse.ArgumentParser = timing_parser(__doc__, rounds=40, out="results/runtimes.json")
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--runtimes", nargs="*", default=list(RUNTIMES), choices=list(RUNTIMES))
    arguments = parser.parse_args()
    left_out = {name: lacks for name in arguments.runtimes if (lacks := RUNTIMES[name].missing())}
    for lacks in left_out.values():
        print(lacks, flush=True)
    runtimes = [RUNTIMES[name] for name in arguments.runtimes if name not in left_out]
    rows = []
    with using_threads(arguments.threads):
        for name in arguments.models:
            found = compare(name, runtimes, arguments.rounds, arguments.threads)
            print(*found, sep="\n", flush=True)
            rows += found
    figures = {"batch_size": 1, "image_size": IMAGE_SIZE, "threads": arguments.threads, "rounds": arguments.rounds}
    write_result(arguments.out, {**figures, "seed": 0, "left_out": sorted(left_out), "rows": rows})


if __name__ == "__main__":
    main()
