"""What one switchable ONNX file costs against the files of its sub-networks: time, size and exactness.

    python benchmarks/switchable.py [--rounds 40] [--threads 2] [--models torchvision:resnet50] [--runtimes openvino]

Random weights, 224 pixels, batch 1, on the CPU. For every network with depths, and a ResNet-50 with four widths, in
both modes, and the same files in each runtime that runs ONNX:

- `over_static`: the base-net and the super-net of the switchable file over the static file of the same sub-network
  (limits: fast 1.05, compact 1.20);
- `in_turn_over_alone`: the two in turn, as in a service that changes depth with load, over each called again and again
  (limit: 1.03);
- `size`: the length of the file over that of the super-net's (fast 1.7, of MobileNetV2 1.9; compact 1.02);
- `latency_ratio`: the base-net over the super-net, beside the same ratio of multiply-accumulates;
- `memory`: what a process holds that runs the super-net of the file, over the same of the super-net's own file;
- `difference`: the largest from eager PyTorch over all sub-networks (limit: 1e-4).

Where a runtime compiles sub-networks on their own once it is told which will run, the same with two of them loaded, the
base-net and the super-net: `fast_two` and `compact_two`, with the same limits.

Figures are medians over interleaved rounds; ratios are taken round by round, because a machine that slows down
meanwhile slows all alike. Writes results/switchable.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
from networks import adapted
from provenance import write_result
from timing import median_ratio, timing_parser

import pliant
import pliant.runtime
from pliant.core.adaptive import AdaptiveModule
from pliant.core.inputs import InputSpec
from pliant.core.macs import count_gmacs
from pliant.export.verify import largest_difference, runs
from pliant.measure.latency import interleaved_ms, using_threads
from pliant.runtime.memory import file_memory_mb
from pliant.runtime.runtimes import RUNTIMES

MODELS = ("torchvision:resnet50", "torchvision:vit_b_16", "torchvision:swin_t", "torchvision:mobilenet_v2")
WIDE = "torchvision:resnet50"
IMAGE_SIZE = 224
REPEATS = 3
MODES = ("fast", "compact")
SWITCHING = [name for name, runtime in RUNTIMES.items() if runtime.switches]
LIMITS = {"fast_over_static": 1.05, "compact_over_static": 1.20, "fast_size": 1.7, "compact_size": 1.02}
LIMITS |= {"fast_size_mobilenet_v2": 1.9, "in_turn_over_alone": 1.03, "difference": 1e-4}


def one_by_one(net: pliant.runtime.ExportedFile, images: numpy.ndarray, subnets: Sequence[str]) -> None:
    for subnet in subnets:
        net(images, subnet)


def write_files(model: AdaptiveModule, folder: Path) -> dict[str, Any]:
    """Export the base-net, the super-net and both switchable files; return their sizes."""
    figures: dict[str, Any] = {"subnets": len(model.subnets)}
    for role, subnet in ends_of(model).items():
        report = pliant.export(model, folder / f"{role}.onnx", subnet=subnet, image_size=IMAGE_SIZE)
        figures |= {role: subnet, f"{role}_mb": report.size_mb}
    for mode in MODES:
        report = pliant.export(model, folder / f"{mode}.onnx", switchable=mode, image_size=IMAGE_SIZE)
        figures |= {f"{mode}_mb": report.size_mb, f"{mode}_size": report.size_mb / figures["super_mb"]}
    return figures


def ends_of(model: AdaptiveModule) -> dict[str, str]:
    return {"base": str(model.space.smallest), "super": str(model.space.largest)}


def largest_differences(model: AdaptiveModule, net: pliant.runtime.ExportedFile) -> float:
    """Run all sub-networks of a switchable file, and return how far the worst is from eager PyTorch."""
    inputs = InputSpec.of((3, IMAGE_SIZE, IMAGE_SIZE))
    assert model(inputs.random(1)).std() > 0.01, "answers too small to compare"
    return max(largest_difference(partial(model, subnet=one), runs(net, one), inputs, (1,)) for one in net.subnets)


def compare(model: AdaptiveModule, folder: Path, runtime: str, rounds: int, threads: int) -> dict[str, Any]:
    """Time the four files of a network in one runtime and one run."""
    images = torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE).numpy()
    ends = ends_of(model)
    calls: dict[str, Callable[[], Any]] = {}
    for role in ends:
        calls[role] = partial(pliant.runtime.load(folder / f"{role}.onnx", runtime=runtime, threads=threads), images)
    figures: dict[str, Any] = {}
    for kind, loading in loaded(ends, runtime).items():
        net = pliant.runtime.load(folder / file_of(kind), **loading, threads=threads)
        figures[f"{kind}_difference"] = largest_differences(model, net)
        calls |= {f"{kind}_{role}": partial(net, images, subnet) for role, subnet in ends.items()}
        calls |= {f"{kind}_{role}_alone": partial(one_by_one, net, images, [ends[role]] * REPEATS) for role in ends}
        calls[f"{kind}_in_turn"] = partial(one_by_one, net, images, [*ends.values()] * REPEATS)
    figures |= memories(folder, ends, runtime, threads)
    times = interleaved_ms(calls, rounds=rounds, warmup=3)
    figures |= {f"{name}_ms": statistics.median(each) for name, each in times.items()}
    for kind in loaded(ends, runtime):
        for role in ends:
            figures[f"{kind}_{role}_over_static"] = median_ratio(times, f"{kind}_{role}", role)
        alone = zip(*(times[f"{kind}_{how}"] for how in ("base_alone", "super_alone", "in_turn")), strict=True)
        figures[f"{kind}_in_turn_over_alone"] = statistics.median(both / (one + other) for one, other, both in alone)
        figures[f"{kind}_latency_ratio"] = median_ratio(times, f"{kind}_base", f"{kind}_super")
    return figures


def loaded(ends: Mapping[str, str], runtime: str) -> dict[str, dict[str, Any]]:
    """Return the ways in which a runtime loads switchable files."""
    ways: dict[str, dict[str, Any]] = {mode: {"runtime": runtime} for mode in MODES}
    if RUNTIMES[runtime].settles:
        ways |= {f"{mode}_two": {"runtime": runtime, "subnets": [*ends.values()]} for mode in MODES}
    return ways


def file_of(kind: str) -> str:
    return f"{kind.removesuffix('_two')}.onnx"


def memories(folder: Path, ends: Mapping[str, str], runtime: str, threads: int) -> dict[str, float]:
    """Measure what the super-net takes in memory, in a file of its own and in the switchable ones."""
    ways = {"super": {"runtime": runtime}} | loaded(ends, runtime)
    mb = {
        kind: file_memory_mb(folder / file_of(kind), ends["super"], **loading, threads=threads)
        for kind, loading in ways.items()
    }
    ratios = {f"{kind}_memory": mb[kind] / mb["super"] for kind in mb if kind != "super"}
    return {f"{kind}_peak_memory_mb": value for kind, value in mb.items()} | ratios


def compared(name: str, config: Any, runtimes: Sequence[str], rounds: int, threads: int) -> list[dict[str, Any]]:
    """Return one row for each runtime."""
    model = adapted(name, config, IMAGE_SIZE)
    gmacs = [count_gmacs(pliant.extract(model, end, share=True), IMAGE_SIZE) for end in ends_of(model).values()]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        row = {"model": name, "axis": type(config).__name__.lower(), **write_files(model, Path(folder))}
        row["macs_ratio"] = gmacs[0] / gmacs[1]
        for runtime in runtimes:
            rows.append({**row, "runtime": runtime, **compare(model, Path(folder), runtime, rounds, threads)})
            print(rows[-1], flush=True)
    return [{key: round(value, 9) if isinstance(value, float) else value for key, value in row.items()} for row in rows]


def main() -> None:
    parser: argparse.ArgumentParser = timing_parser(__doc__, rounds=40, out="results/switchable.json")
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--no-widths", action="store_true", help="leave out the network with widths")
    parser.add_argument("--runtimes", nargs="*", default=SWITCHING, choices=SWITCHING)
    arguments = parser.parse_args()
    runtimes = [name for name in arguments.runtimes if not RUNTIMES[name].missing()]
    rows = []
    with using_threads(arguments.threads):
        networks = [(name, pliant.Depth()) for name in arguments.models]
        networks += [] if arguments.no_widths else [(WIDE, pliant.Width())]
        for name, config in networks:
            rows += compared(name, config, runtimes, arguments.rounds, arguments.threads)
    figures = {"batch_size": 1, "image_size": IMAGE_SIZE, "threads": arguments.threads, "rounds": arguments.rounds}
    write_result(arguments.out, {**figures, "seed": 0, "limits": LIMITS, "networks": rows})


if __name__ == "__main__":
    main()
