"""Whether a gate saves time in ONNX Runtime: its one file against the files of the widths, image by image.

    python benchmarks/gate_file.py runs/cifar10-gate-resnet20/bootstrapping-seed0-gate [...] --data PATH

The networks are those that `gate_evidence.py` trained. As there, budgets are found on validation images and accuracies
are those of the test images; `export` compares every file with eager PyTorch. Then all files answer the same test
images one by one and take turns: the gate as it was trained and with every budget, and each width in a file of its own,
its norms folded. `gmacs_ratio` and `latency_ratio` are the gated file's over those of the static width of equal
accuracy (`pliant.measure.gate_table.equal_accuracy`), of mean latencies over the images. The routes that files take on
these images are those of `pliant.predict`. Writes results/gate_file.json.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from early_exit_file import open_session
from provenance import write_result
from torch import Tensor, nn

import pliant
from pliant.data import ImageData, load_data
from pliant.measure.gate_table import equal_accuracy
from pliant.measure.gates import measure_gate
from pliant.measure.latency import using_threads
from pliant.measure.one_by_one import time_one_by_one
from pliant.width.gates import gate_of

BUDGETS = 5


def answering(path: Path, threads: int) -> Callable[[Tensor], list[Any]]:
    session = open_session(path, threads)
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image.numpy()})


def name_of(row: Mapping[str, Any]) -> str:
    """What a row of a `GateTable` is called here."""
    return f"{row['subnet']} {row['budget']:.4f}" if "budget" in row else row["subnet"]


def write_gate(model: nn.Module, row: Mapping[str, Any], size: int, path: Path, images: Tensor) -> None:
    """Export the model with the offsets of a row, and see that the file goes the ways that the model does."""
    gate_of(model).offsets.copy_(torch.tensor(row["offsets"]))
    pliant.export(model, path, policy="gate", image_size=size)
    with torch.no_grad():
        _, places = pliant.predict(model, images, policy="gate")
    run = answering(path, 1)
    taken = [int(run(image[None])[1][0]) for image in images]
    assert taken == places.tolist(), f"{name_of(row)}: other routes than pliant.predict"


def compare(folder: Path, data: ImageData, images: int, threads: int) -> list[dict[str, Any]]:
    """Return a row for each way of choosing."""
    model = pliant.load(folder).eval()
    table = measure_gate(model, data, budgets=BUDGETS, rounds=0)
    gates = {name_of(row): row for row in (table.gated, *table.budgets)}
    static = {row["subnet"]: row for row in table.static}
    tried, _ = next(iter(data.test.batches(images)))
    with tempfile.TemporaryDirectory() as name:
        files = Path(name)
        calls: dict[str, Callable[[Tensor], object]] = {}
        for number, (what, row) in enumerate((gates | static).items()):
            path = files / f"{number}.onnx"
            if what in gates:
                write_gate(model, row, data.image_size, path, tried)
            else:
                pliant.export(model, path, subnet=what, image_size=data.image_size)
            calls[what] = answering(path, threads)
        latencies, _ = time_one_by_one(
            model, calls, data.test, threads=threads, rounds=images, warmup=20, on_progress=lambda *_: None
        )
    for what, row in (gates | static).items():
        row["latency_ms_mean"] = latencies[what]["latency_ms_mean"]
    rows = []
    for what, row in (gates | static).items():
        shown = {"network": str(folder), "choice": what, "acc1": row["acc1"], "gmacs": row["gmacs"]}
        shown["latency_ms_mean"] = round(row["latency_ms_mean"], 4)
        equal = equal_accuracy(row, table.static) if what in gates else None
        if equal is not None:
            shown |= {key: round(equal[key], 4) for key in ("gmacs_ratio", "latency_ratio")}
        rows.append(shown)
        print(shown, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="of gate_evidence.py, the phase of the gate")
    parser.add_argument("--data", default="cifar10", help="folder or archive of class folders, or a data set")
    parser.add_argument("--images", type=int, default=1000, help="answered one by one")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="results/gate_file.json")
    arguments = parser.parse_args()
    data = load_data(arguments.data, seed=0)
    with using_threads(arguments.threads), torch.no_grad():
        rows = [row for one in arguments.folders for row in compare(one, data, arguments.images, arguments.threads)]
    figures = {"images": arguments.images, "threads": arguments.threads, "batch_size": 1}
    write_result(arguments.out, {"rows": rows} | figures)


if __name__ == "__main__":
    main()
