"""Accuracy, latency and size of trained networks in int8 beside float32, on CIFAR-10 and in real runtimes.

    python benchmarks/int8.py runs/cifar10/adn-sum-seed0 runs/cifar10-mobilenetv2/adn-sum-seed0 --data PATH

The runs are those of benchmarks/evidence.py. In each runtime that is installed and has int8 files, the base-net and the
super-net of each are written in float32 and in int8, calibrated on training images, and measured in one run: accuracy
on all test images, latency of single images, interleaved. `latency_ratio`: int8 over float32 of the same sub-network.
Writes results/int8.json.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from provenance import write_result
from timing import timing_parser

import pliant
from pliant.core.adaptive import AdaptiveModule
from pliant.data import ImageData, load_data
from pliant.measure import measure_file
from pliant.recalibrate import training_images
from pliant.runtime.runtimes import RUNTIMES, Runtime

CALIBRATION_IMAGES = 512
KEPT = ("acc1", "latency_ms", "latency_ms_p95", "file_mb")


def write_files(model: AdaptiveModule, data: ImageData, runtime: Runtime, folder: Path) -> dict[Path, tuple[str, str]]:
    """Write four files for a runtime; return which sub-network and precision each has."""
    info = {"class_names": data.class_names, "mean": data.mean, "std": data.std, "image_size": data.image_size}
    files = {}
    for subnet in map(str, (model.space.smallest, model.space.largest)):
        for precision in ("float32", "int8"):
            images = training_images(data, CALIBRATION_IMAGES) if precision == "int8" else None
            path = folder / f"{runtime.name}-{subnet}-{precision}{runtime.ending}"
            pliant.export(model, path, runtime=runtime.name, subnet=subnet, calibrate_on=images, info=info)
            files[path] = (subnet, precision)
    return files


def compare(run: Path, data: ImageData, runtimes: Sequence[Runtime], rounds: int, threads: int) -> list[dict[str, Any]]:
    """Return a row for each runtime, sub-network and precision."""
    model = pliant.load(run)
    assert isinstance(model, AdaptiveModule)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for runtime in runtimes:
            files = write_files(model, data, runtime, Path(folder))
            first, *others = files
            how: dict[str, Any] = {"threads": threads, "rounds": rounds, "memory": False}
            table = measure_file(first, data, runtime=runtime.name, beside=others, **how)
            float32_ms = 0.0
            for (subnet, precision), measured in zip(files.values(), table.rows, strict=True):
                row = {"network": run.parent.name, "run": run.name, "runtime": runtime.name, "subnet": subnet}
                row |= {"precision": precision, **{key: measured[key] for key in KEPT}}
                float32_ms = measured["latency_ms"] if precision == "float32" else float32_ms
                rows.append({**row, "latency_ratio": measured["latency_ms"] / float32_ms})
                print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser: argparse.ArgumentParser = timing_parser(__doc__, rounds=200, out="results/int8.json")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", default="cifar10", help="folder or archive of class folders, or a data set")
    arguments = parser.parse_args()
    runtimes = [runtime for runtime in RUNTIMES.values() if runtime.quantized and not runtime.missing()]
    data = load_data(arguments.data, seed=0)
    rows = []
    for run in arguments.runs:
        rows += compare(run, data, runtimes, arguments.rounds, arguments.threads)
    figures = {"batch_size": 1, "threads": arguments.threads, "rounds": arguments.rounds}
    write_result(arguments.out, {**figures, "calibrated_on": CALIBRATION_IMAGES, "rows": rows})


if __name__ == "__main__":
    main()
