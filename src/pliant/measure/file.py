"""`measure_file`: an exported file in its runtime, on this machine, as a `Table` like that of a live network."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from pliant.measure.accuracy import measure_accuracy
from pliant.measure.energy import Meter, read_joules
from pliant.measure.environment import describe_environment
from pliant.measure.latency import using_threads
from pliant.measure.run import split_of
from pliant.measure.table import Table
from pliant.measure.timing import Progress, Timing, at_least_one
from pliant.runtime import ExportedFile, load
from pliant.runtime.inputs import text_of
from pliant.runtime.memory import file_memory_mb, why_no_memory

if TYPE_CHECKING:
    from pliant.data import ImageData

__all__ = ["measure_file"]

_EVAL_BATCH = 64
"""Images in a pass that measures accuracy, where the file does not fix how many."""

_NEEDED = ("class_names", "mean", "std")


def measure_file(
    path: str | os.PathLike[str],
    data: ImageData | None = None,
    *,
    runtime: str | None = None,
    subnets: Sequence[str] | None = None,
    beside: Sequence[str | os.PathLike[str]] = (),
    split: Literal["test", "val"] = "test",
    batch_size: int | None = None,
    threads: int | None = None,
    rounds: int | None = None,
    budget_seconds: float | None = None,
    warmup: int = 3,
    memory: bool = True,
    energy: bool = True,
    meter: Meter | None = None,
    on_progress: Progress = lambda what, done, total: None,
) -> Table:
    """Measure accuracy, latency, memory and energy of a file that `export` wrote: a row for each sub-network it has.

    Args:
        path: the file.
        data: where accuracy is measured; it is normalised as the file says. None = accuracy is left out.
        runtime: what runs the files, such as `openvino`; none = what their ending stands for.
        subnets: the only sub-networks of the file that are loaded, see `pliant.runtime.load`; none = all.
        beside: other files, measured in the same rounds, such as the int8 file of the same network.
        split: of the data; data without a test split is measured on `val`, and the table says so.
        batch_size: images in a pass that is timed; none = what the file fixes, else 1.
        threads: CPU threads; none = as many as PyTorch uses now.
        rounds: times each sub-network is timed; none = 100, or as many as fit.
        budget_seconds: see `measure`.
        warmup: rounds before that, not recorded.
        memory: measure peak memory where it can be read (Linux); where not, `no_memory` in the table's `info` says
            why. A process for each sub-network loads the file and runs it.
        energy: see `measure`; that of processors.
        meter: see `measure`.
        on_progress: called with what is being measured, how much is done, of how much.

    Returns:
        A table whose rows have what the file says of `gmacs` and `params_m`, and `acc1`, `acc5`, `latency_ms`
        with its percentiles, `peak_memory_mb` (`pliant.runtime.memory`), `energy_mj` of an image where it can be
        read, `file_mb` (10^6 bytes, of the whole file) and `precision`.

    Raises:
        ValueError: no such file, runtime or sub-network, a file that `pliant` did not write or that does not say what
            accuracy needs, data of other classes or of another size, or options that make no sense.
    """
    at_least_one(batch_size=batch_size)
    timing = Timing(threads=threads, rounds=rounds, budget_seconds=budget_seconds, warmup=warmup)
    if meter is not None:
        read_joules(meter)
    with using_threads(threads) as used:
        wanted: dict[Path, Sequence[str] | None] = dict.fromkeys(map(Path, (path, *beside))) | {Path(path): subnets}
        files = {one: load(one, runtime=runtime, subnets=few, threads=used) for one, few in wanted.items()}
        rows = [_described(one, file, subnet) for one, file in files.items() for subnet in file.subnets]
        first = files[Path(path)].info
        info: dict[str, Any] = {"model": first.get("model") or Path(path).name, "inputs": text_of(first)}
        info |= {} if _size(first) is None else {"image_size": _size(first)}
        batch = batch_size or first.get("batch") or 1
        calls = _calls(files, batch)
        if data is not None:
            info |= _add_accuracy(rows, files, data, split, on_progress)
        latencies, circumstances = timing.latencies(calls, on_progress)
        used_mj, said = timing.energies(calls, meter, on_progress) if energy else ({}, {})
        info |= circumstances | said
        if memory:
            info |= _add_memory(rows, files, wanted, on_progress, runtime=runtime, batch_size=batch, threads=used)
        for name, row in zip(calls, rows, strict=True):
            row |= latencies[name] | ({"energy_mj": used_mj[name] / batch} if used_mj else {})
    versions = sorted({file.session.version for file in files.values()})
    info |= {"files": [one.name for one in files], "runtime": ", ".join(versions)}
    precisions = sorted({row["precision"] for row in rows})
    info |= {"batch_size": batch, "dtype": ", ".join(precisions), "device": "cpu"} | describe_environment()
    return Table(rows, info)


def _described(path: Path, file: ExportedFile, subnet: str) -> dict[str, Any]:
    row = next(row for row in file.table if row["subnet"] == subnet)
    # What the file says of accuracy and latency was measured elsewhere.
    costs = {key: row[key] for key in ("gmacs", "params_m") if key in row}
    precision = file.info.get("precision", "float32")
    return {"subnet": subnet, "precision": precision, **costs, "file_mb": path.stat().st_size / 1e6}


def _size(info: Mapping[str, Any]) -> int | None:
    return info.get("image_size") or info.get("tokens")


def _as_file_says(path: Path, info: Mapping[str, Any], data: ImageData) -> ImageData:
    """Return the images as the network of a file takes them."""
    missing = [key for key in _NEEDED if key not in info]
    if missing:
        raise ValueError(
            f"{path}: does not say {' and '.join(missing)}, without which its accuracy cannot be measured; export it "
            "from a run folder, or with info= that has them"
        )
    if len(info["class_names"]) != len(data.class_names):
        raise ValueError(
            f"{path}: was trained on {len(info['class_names'])} classes, and {data.name} has {len(data.class_names)}"
        )
    if data.image_size != _size(info):
        if "image_size" not in info:
            raise ValueError(f"data: got the images of {data.name}, but {path} takes {text_of(info)}; leave it out")
        raise ValueError(
            f"{path}: takes images of {_size(info)} pixels, and these of {data.name} have {data.image_size}; load them "
            f"with image_size={_size(info)}"
        )
    return data.as_trained_on(info["class_names"], info["mean"], info["std"])


def _in_batches(file: ExportedFile, subnet: str) -> Callable[[Tensor], Tensor]:
    """Return what runs a sub-network on any number of images, also where the file fixes or limits how many it takes."""
    fixed, most = file.info.get("batch"), file.info.get("most")

    def run(images: Tensor) -> Tensor:
        answers = []
        for part in images.split(fixed or most or len(images)):
            filled = torch.cat([part, part[:1].expand((fixed or len(part)) - len(part), *part.shape[1:])])
            answers.append(torch.from_numpy(file(filled.numpy(), subnet))[: len(part)])
        return torch.cat(answers)

    return run


def _add_accuracy(
    rows: Sequence[dict[str, Any]],
    files: Mapping[Path, ExportedFile],
    data: ImageData,
    split: str,
    on_progress: Progress,
) -> dict[str, Any]:
    found: list[dict[str, float]] = []
    used, part = split_of(data, split)
    for path, file in files.items():
        used, part = split_of(_as_file_says(path, file.info, data), split)
        calls = {subnet: _in_batches(file, subnet) for subnet in file.subnets}
        accuracies = measure_accuracy(calls, used, len(data.class_names), batch_size=_EVAL_BATCH)
        found += [accuracies[subnet] for subnet in file.subnets]
        on_progress("accuracy", len(found), len(rows))
    for row, accuracies in zip(rows, found, strict=True):
        row |= accuracies
    return {"data": data.name, "split": part, "images": len(used.labels)}


def _add_memory(
    rows: Sequence[dict[str, Any]],
    files: Mapping[Path, ExportedFile],
    wanted: Mapping[Path, Sequence[str] | None],
    on_progress: Progress,
    **how: Any,
) -> dict[str, Any]:
    """Measure the memory of each sub-network, or return why it cannot be."""
    if why := why_no_memory():
        return {"no_memory": why}
    owners = [(path, subnet) for path, file in files.items() for subnet in file.subnets]
    for done, (row, (path, subnet)) in enumerate(zip(rows, owners, strict=True), start=1):
        row["peak_memory_mb"] = file_memory_mb(path, subnet, subnets=wanted[path], **how)
        on_progress("memory", done, len(rows))
    return {}


def _calls(files: Mapping[Path, ExportedFile], batch_size: int) -> dict[str, Callable[[], object]]:
    """Return what is timed, by file and sub-network; refuses batches that a file does not take."""
    calls: dict[str, Callable[[], object]] = {}
    for path, file in files.items():
        example = file.example(batch_size)
        file.check(example)
        calls |= {f"{path} {subnet}": partial(file, example, subnet) for subnet in file.subnets}
    return calls
