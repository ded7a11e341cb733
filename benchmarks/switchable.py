"""What one switchable ONNX file costs against the files of its sub-networks: time, size and exactness.

    python benchmarks/switchable.py [--rounds 40] [--threads 2] [--models torchvision:resnet50 ...]

Random weights, 224 pixels, batch 1, ONNX Runtime on the CPU. For every network with depths, and a ResNet-50 with four
widths, in both modes:

- `over_static`: the base-net and the super-net of the switchable file over the static file of the same sub-network
  (limits: fast 1.05, compact 1.20);
- `in_turn_over_alone`: the two in turn, as in a service that changes depth with load, over each called again and again;
- `size`: the length of the file over that of the super-net's (fast 1.7, of MobileNetV2 1.9; compact 1.02);
- `latency_ratio`: the base-net over the super-net, beside the same ratio of multiply-accumulates;
- `difference`: the largest from eager PyTorch over all sub-networks, each of which `export` has run.

Figures are medians over interleaved rounds; ratios are taken round by round, because a machine that slows down
meanwhile slows all alike. Writes results/switchable.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import torch
from provenance import write_result
from timing import median_ratio, timing_parser

import pliant
import pliant.runtime
from pliant.core.adaptive import AdaptiveModule
from pliant.measure.latency import interleaved_ms, using_threads

MODELS = ("torchvision:resnet50", "torchvision:vit_b_16", "torchvision:swin_t", "torchvision:mobilenet_v2")
WIDE = "torchvision:resnet50"
IMAGE_SIZE = 224
REPEATS = 3
MODES = ("fast", "compact")
LIMITS = {"fast_over_static": 1.05, "compact_over_static": 1.20, "fast_size": 1.7, "compact_size": 1.02}
LIMITS |= {"fast_size_mobilenet_v2": 1.9}


def adapted(name: str, config: Any) -> AdaptiveModule:
    torch.manual_seed(0)
    model = pliant.adapt_(pliant.create_model(name), config).eval()
    assert isinstance(model, AdaptiveModule)
    return model


def static_call(path: Path, images: numpy.ndarray, threads: int) -> Callable[[], Any]:
    """Load the file of one sub-network."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return partial(session.run, None, {"images": images})


def one_by_one(net: pliant.runtime.ExportedFile, images: numpy.ndarray, subnets: Sequence[str]) -> None:
    for subnet in subnets:
        net(images, subnet)


def compare(model: AdaptiveModule, folder: Path, rounds: int, threads: int) -> dict[str, Any]:
    """Export the base-net, the super-net and both switchable files, and time them in one run."""
    images = torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE).numpy()
    ends = {"base": str(model.space.smallest), "super": str(model.space.largest)}
    calls: dict[str, Callable[[], Any]] = {}
    figures: dict[str, Any] = {"subnets": len(model.subnets), **ends}
    for role, subnet in ends.items():
        report = pliant.export(model, folder / f"{role}.onnx", subnet=subnet, image_size=IMAGE_SIZE)
        figures[f"{role}_mb"] = report.size_mb
        calls[role] = static_call(report.path, images, threads)
    nets = {}
    for mode in MODES:
        report = pliant.export(model, folder / f"{mode}.onnx", switchable=mode, image_size=IMAGE_SIZE)
        figures |= {f"{mode}_mb": report.size_mb, f"{mode}_size": report.size_mb / figures["super_mb"]}
        figures |= {f"{mode}_difference": report.difference}
        nets[mode] = net = pliant.runtime.load(report.path, threads=threads)
        calls |= {f"{mode}_{role}": partial(net, images, subnet) for role, subnet in ends.items()}
        calls |= {f"{mode}_{role}_alone": partial(one_by_one, net, images, [ends[role]] * REPEATS) for role in ends}
        calls[f"{mode}_in_turn"] = partial(one_by_one, net, images, [*ends.values()] * REPEATS)
    times = interleaved_ms(calls, rounds=rounds, warmup=3)
    figures |= {f"{name}_ms": statistics.median(each) for name, each in times.items()}
    for mode in MODES:
        for role in ends:
            figures[f"{mode}_{role}_over_static"] = median_ratio(times, f"{mode}_{role}", role)
        alone = zip(*(times[f"{mode}_{kind}"] for kind in ("base_alone", "super_alone", "in_turn")), strict=True)
        figures[f"{mode}_in_turn_over_alone"] = statistics.median(both / (one + other) for one, other, both in alone)
        figures[f"{mode}_latency_ratio"] = median_ratio(times, f"{mode}_base", f"{mode}_super")
    smallest, *_, largest = nets["fast"].table
    figures["macs_ratio"] = smallest["gmacs"] / largest["gmacs"]
    return {key: round(value, 9) if isinstance(value, float) else value for key, value in figures.items()}


def main() -> None:
    parser: argparse.ArgumentParser = timing_parser(__doc__, rounds=40, out="results/switchable.json")
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--no-widths", action="store_true", help="leave out the network with widths")
    arguments = parser.parse_args()
    rows = []
    with using_threads(arguments.threads):
        networks = [(name, pliant.Depth()) for name in arguments.models]
        networks += [] if arguments.no_widths else [(WIDE, pliant.Width())]
        for name, config in networks:
            with tempfile.TemporaryDirectory() as folder:
                found = compare(adapted(name, config), Path(folder), arguments.rounds, arguments.threads)
            rows.append({"model": name, "axis": type(config).__name__.lower(), **found})
            print(rows[-1], flush=True)
    figures = {"batch_size": 1, "image_size": IMAGE_SIZE, "threads": arguments.threads, "rounds": arguments.rounds}
    write_result(arguments.out, {**figures, "seed": 0, "limits": LIMITS, "networks": rows})


if __name__ == "__main__":
    main()
