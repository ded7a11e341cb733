"""What every export needs first: a frozen copy, a size of inputs, and what the file shall say about itself."""

from __future__ import annotations

import copy
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from pliant.core.inputs import InputSpec
from pliant.core.taken import inputs_of
from pliant.create import usual_image_size
from pliant.export.onnx import require_onnx
from pliant.export.report import ExportReport
from pliant.export.verify import ExportError
from pliant.runtime.runtimes import Runtime, runtime_of
from pliant.runtime.session import OUTPUT, SWITCHES

__all__ = ["Order", "beside", "describe", "fitting_runtime", "for_inference"]

_DESCRIBED = ("model", "data", "class_names", "mean", "std", "gmacs", "params_m", "acc1", "measured", "data_options")

_Model = TypeVar("_Model", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Order:
    """What `export` was asked for, of any kind of file.

    Attributes:
        target: the file.
        runtime: what it is for.
        image_size: height and width of the images in pixels, or the number of tokens; none = as the example is, as
            trained, as usual.
        example: one input, or what is known of one; none = the one that the model was adapted with.
        batch: a fixed batch size; none = any, or what the kind of file takes.
        tolerance: how far outputs may differ.
        info: what to write into the file.
        started: by the clock of `time.perf_counter`.

    Raises:
        ExportError: a folder, a missing runtime, or numbers that make no sense.
    """

    target: Path
    runtime: Runtime
    image_size: int | None
    example: Any = None
    batch: int | None
    tolerance: float
    info: Mapping[str, Any]
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        if self.target.is_dir():
            raise ExportError(f"{self.target}: is a folder; expected the name of a file")
        if self.batch is not None:
            _positive("batch", self.batch)
        if not self.tolerance > 0:
            raise ExportError(f"tolerance: got {self.tolerance}, expected more than 0")
        if self.target.suffix.lower() == ".onnx":
            require_onnx()
        if missing := self.runtime.missing():
            raise ExportError(missing)

    @property
    def most(self) -> int | None:
        """How many inputs the file takes at once, where that is limited and not fixed."""
        return self.runtime.most if self.batch is None else None

    def inputs(self, network: nn.Module) -> InputSpec:
        """Return what a network takes: of the size as asked, as its example is, as trained, as usual.

        Raises:
            ExportError: nobody says it, or the size that was asked for makes no sense.
        """
        usual = self.info.get("image_size") or usual_image_size(network)
        try:
            inputs = inputs_of(network, image_size=self.image_size, example=self.example, usual=usual)
        except ValueError as error:
            raise ExportError(str(error)) from None
        name = type(network).__name__
        if inputs is None:
            raise ExportError(
                f"image_size: this {name} does not say its image size; pass image_size=, or example=, one input"
            )
        taken = [one for one in inputs.named if one in (*SWITCHES, OUTPUT)]
        if taken:
            raise ExportError(
                f"example: this {name} takes an input {taken[0]!r}, which has a meaning in exported files"
            )
        return inputs.of_dtype(torch.float32)

    def done(self, inputs: InputSpec, *, difference: float, runtime: str, **kind: Any) -> ExportReport:
        """Report on the file, which is in its place; `kind` is what is special about it."""
        common = {
            "path": self.target,
            "format": self.runtime.format,
            "input_shape": inputs.shape,
            "inputs": str(inputs),
        }
        common |= {
            "batch": self.batch,
            "most": self.most,
            "size_mb": self.target.stat().st_size / 1e6,
            "runtime": runtime,
        }
        seconds = time.perf_counter() - self.started
        return ExportReport(**common | kind, difference=difference, tolerance=self.tolerance, seconds=seconds)


def fitting_runtime(target: Path, name: str | None = None) -> Runtime:
    """Return the runtime for a file, as `runtime_of` does.

    Raises:
        ExportError: there is none.
    """
    try:
        return runtime_of(target, name)
    except ValueError as error:
        raise ExportError(str(error)) from None


def _positive(name: str, value: Any) -> int:
    """Return a whole number of at least 1.

    Raises:
        ExportError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ExportError(f"{name}: got {value!r}, expected a whole number of at least 1")
    return value


def for_inference(model: _Model) -> _Model:
    """Return a copy in eval mode, in float32 on the CPU."""
    copied = copy.deepcopy(model).to("cpu", torch.float32).to(memory_format=torch.contiguous_format)
    return copied.eval().requires_grad_(False)


def describe(
    inputs: InputSpec, batch: int | None, info: Mapping[str, Any], *, most: int | None = None
) -> dict[str, Any]:
    """Return what a file says about itself: versions, inputs, and what of `info` belongs into it."""
    from pliant import __version__

    metadata: dict[str, Any] = {"pliant_version": __version__, "torch_version": str(torch.__version__)}
    only = inputs.only
    if inputs.vocabulary:
        metadata |= {"tokens": inputs.shape[0], "vocabulary": inputs.vocabulary}
    elif inputs.size and only and only.is_floating:
        metadata |= {"image_size": inputs.size, "channels": inputs.shape[0]}
    else:
        metadata["inputs"] = [
            {
                "name": name,
                "shape": list(one.shape[1:] if inputs.is_batched(one) else one.shape),
                "dtype": "float32" if one.is_floating else str(one.dtype).removeprefix("torch."),
                "batched": inputs.is_batched(one),
                "least": one.least,
                "most": one.most,
            }
            for name, one in inputs.named.items()
        ]
    if batch is not None:
        metadata["batch"] = batch
    elif most is not None:
        metadata["most"] = most
    for key in _DESCRIBED:
        if info.get(key) is not None:
            value = info[key]
            metadata[key] = list(value) if isinstance(value, tuple) else value
    return metadata


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Give a place beside `target` for a file that takes its place at the end, unless an error comes before."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".pliant-export-") as folder:
        written = Path(folder) / target.name
        yield written
        os.replace(written, target)
