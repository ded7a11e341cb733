"""`export`: take a sub-network out, write it, run the file in its own runtime; keep it only if it agrees."""

from __future__ import annotations

import copy
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pliant.core.adaptive import AdaptiveModule
from pliant.core.inputs import InputSpec, input_spec, logits_of
from pliant.core.subnet import SubNet
from pliant.core.wrapped import refuse_wrapped
from pliant.create import usual_image_size
from pliant.export.onnx import read_onnx_metadata, require_onnx, run_onnx, write_onnx
from pliant.export.program import read_program_metadata, run_program, trace, write_program
from pliant.export.verify import ExportError, first_line, largest_difference
from pliant.extract import extract
from pliant.recalibrate import recalibrate_, why_not

__all__ = ["FORMATS", "ExportReport", "export", "read_metadata"]

Eager = Callable[[Tensor], Tensor]

FORMATS = {".onnx": "ONNX", ".pt2": "PyTorch program"}

_DESCRIBED = ("model", "data", "class_names", "mean", "std", "gmacs", "params_m", "acc1")
# Two batch sizes show that the batch is dynamic; one of them is 1, which tracers like to treat as a constant.
_TRIED_BATCHES = (1, 3)


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was written and how it was checked.

    Attributes:
        path: the file.
        format: `ONNX` or `PyTorch program`.
        subnet: the sub-network as text; none where a network without sub-networks was given.
        role: `super-net`, `base-net`, `sub-network` or `network`.
        recalibrated_on: from how many training images its norm statistics were taken anew; none = they are those
            of the model.
        input_shape: `(channels, height, width)` of an image that the file takes, or `(tokens,)`.
        batch: the fixed batch size; none = any.
        size_mb: length of the file, 10^6 bytes.
        runtime: name and version of what ran the file.
        difference: largest difference from eager PyTorch, as `largest_difference` gives it.
        tolerance: what it was allowed to be.
        seconds: for everything, the check included.
    """

    path: Path
    format: str
    subnet: str | None
    role: str
    recalibrated_on: int | None
    input_shape: tuple[int, ...]
    batch: int | None
    size_mb: float
    runtime: str
    difference: float
    tolerance: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "path": str(self.path), "input_shape": list(self.input_shape)}

    def __str__(self) -> str:
        shape = "x".join(map(str, self.input_shape))
        inputs = f"{shape} images" if len(self.input_shape) > 1 else f"texts of {shape} tokens"
        what = self.role if self.subnet is None else f"{self.role} {self.subnet}"
        batch = "any number of" if self.batch is None else f"batches of {self.batch}"
        anew = f", norm statistics from {self.recalibrated_on} training images" if self.recalibrated_on else ""
        return (
            f"{self.path}: {what} as {self.format}, {self.size_mb:.2f} MB, for {batch} "
            f"{inputs}{anew}; {self.runtime} differs from eager PyTorch by "
            f"{self.difference:.1e} (allowed {self.tolerance:.0e})"
        )


def export(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    subnet: str | SubNet | None = None,
    image_size: int | None = None,
    batch: int | None = None,
    tolerance: float = 1e-4,
    recalibrate_on: Iterable[Tensor] | None = None,
    info: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Write one sub-network, or a plain network, as a file that runs without pliant.

    The network is exported in eval mode, in float32, from a copy; `model` is not changed. The file is
    written beside the target, loaded by the runtime it is for (ONNX Runtime on the CPU, or PyTorch),
    run on seeded images and compared with `model` in eager PyTorch. Only a file that agrees takes the
    target's place; otherwise nothing is left behind and a file that was there stays.

    Args:
        model: an adapted or a plain network that maps `[batch, channels, size, size]`, or tokens
            `[batch, size]`, to logits.
        path: the file; `.onnx` or `.pt2` chooses the format. Folders on the way are made.
        subnet: which sub-network; none = the super-net.
        image_size: height and width of the images in pixels, or the number of tokens; none =
            `info["image_size"]`, else what a network of a library was made for.
        batch: a fixed batch size for runtimes that need one; none = any number of images.
        tolerance: how far outputs may differ, in units of the largest output where that exceeds 1.
        recalibrate_on: training images in batches, varied as in the training, from which the norm statistics of a
            sub-network that was not trained are taken anew, as `pliant.recalibrated` does; a trained one keeps
            its own. None = all as in the model.
        info: what to write into the file beside versions, sub-network and image size, such as
            `class_names`, `mean`, `std`, `gmacs` (keys that are not described there are ignored).

    Raises:
        ExportError: (a ValueError) unknown ending, a missing runtime, a network that cannot be exported,
            or a file that differs from eager by more than `tolerance`.
        ValueError: no such sub-network, a wrapped model, or an image or batch size that makes no sense.
    """
    refuse_wrapped(model, "export")
    started = time.perf_counter()
    target, info = Path(path), info or {}
    _check(target, batch, tolerance)
    network, eager, chosen, role = _frozen(model, subnet)
    recalibrated_on = None
    if recalibrate_on is not None and not why_not(model, chosen):
        # The extract shares its tensors with the adapted copy, which therefore still is what the file must agree with.
        recalibrated_on = recalibrate_(network, (images.to("cpu", torch.float32) for images in recalibrate_on))
    size = image_size or info.get("image_size") or _known_image_size(model)
    inputs = input_spec(network, _positive("image_size", size))
    network, eager = _returning_logits(network, eager, inputs)

    metadata = _metadata(chosen, inputs, batch, info)
    if recalibrated_on is not None:
        metadata["recalibrated_on"] = recalibrated_on
    program = trace(network, inputs, batch)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".pliant-export-") as folder:
        written = Path(folder) / target.name
        runtime, run = _write_and_load(program, written, metadata)
        difference = largest_difference(eager, run, inputs, (batch,) if batch else _TRIED_BATCHES)
        if not difference <= tolerance:
            name = f"{role} {chosen}" if chosen else role
            raise ExportError(
                f"{target}: not written, because the exported {name} differs from eager PyTorch by "
                f"{difference:.2e} in {runtime} (allowed: {tolerance:.0e})"
            )
        del run  # some systems do not move a file that is still mapped
        size_mb = written.stat().st_size / 1e6
        os.replace(written, target)
    return ExportReport(
        path=target,
        format=FORMATS[target.suffix.lower()],
        subnet=chosen,
        role=role,
        recalibrated_on=recalibrated_on,
        input_shape=inputs.shape,
        batch=batch,
        size_mb=size_mb,
        runtime=runtime,
        difference=difference,
        tolerance=tolerance,
        seconds=time.perf_counter() - started,
    )


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `export` wrote into a file about itself: versions, sub-network, image size, ...

    Raises:
        ExportError: unknown ending.
    """
    path = Path(path)
    _check_ending(path)
    return read_onnx_metadata(path) if path.suffix.lower() == ".onnx" else read_program_metadata(path)


def _check_ending(target: Path) -> None:
    if target.suffix.lower() not in FORMATS:
        allowed = " or ".join(f"{ending} ({name})" for ending, name in FORMATS.items())
        raise ExportError(f"{target}: unknown ending {target.suffix!r}; expected {allowed}")


def _check(target: Path, batch: int | None, tolerance: float) -> None:
    _check_ending(target)
    if target.is_dir():
        raise ExportError(f"{target}: is a folder; expected the name of a file")
    if batch is not None:
        _positive("batch", batch)
    if not tolerance > 0:
        raise ExportError(f"tolerance: got {tolerance}, expected more than 0")
    if target.suffix.lower() == ".onnx":
        require_onnx()


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ExportError(f"{name}: got {value!r}, expected a whole number of at least 1")
    return value


def _frozen(model: nn.Module, subnet: str | SubNet | None) -> tuple[nn.Module, Eager, str | None, str]:
    """Return the network to export, eager PyTorch to compare it with, the sub-network's name and role."""
    if not isinstance(model, AdaptiveModule):
        if subnet is not None:
            raise ExportError(
                f"subnet: got {str(subnet)!r}, but this {type(model).__name__} has no sub-networks; leave subnet out"
            )
        plain = _for_inference(model)
        return plain, plain, None, "network"
    chosen = model.space.parse("largest" if subnet is None else subnet)
    adapted = _for_inference(model)
    # Compared with the adapted network, not with its own extract: a sub-network that was taken out
    # wrongly would agree with itself.
    role = {model.space.largest: "super-net", model.space.smallest: "base-net"}.get(chosen, "sub-network")
    network = extract(adapted, chosen, share=True)
    return network, lambda images: adapted(images, subnet=chosen), str(chosen), role


def _for_inference(model: nn.Module) -> nn.Module:
    copied = copy.deepcopy(model).to("cpu", torch.float32).to(memory_format=torch.contiguous_format)
    return copied.eval().requires_grad_(False)


def _known_image_size(model: nn.Module) -> int:
    size = usual_image_size(model)
    if size is None:
        name = type(model).__name__
        raise ExportError(f"image_size: this {name} does not say its image size; pass image_size=")
    return size


class _LogitsOnly(nn.Module):
    """A network of transformers that returns its logits and nothing else."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        return logits_of(self.network(inputs))


def _returning_logits(network: nn.Module, eager: Callable[[Tensor], Any], inputs: InputSpec) -> tuple[nn.Module, Eager]:
    """Run the network once; return it, and its eager twin, such that both give one tensor."""
    name = type(network).__name__
    try:
        with torch.no_grad():
            output = eager(inputs.random(1, torch.Generator().manual_seed(0)))
    except (RuntimeError, IndexError) as error:
        raise ExportError(f"{name} does not take inputs of {inputs.shape}: {first_line(error)}") from error
    if isinstance(output, Tensor):
        return network, eager
    try:
        logits_of(output)
    except ValueError as error:
        raise ExportError(f"{name}: {error}") from error
    return _LogitsOnly(network), lambda example: logits_of(eager(example))


def _metadata(subnet: str | None, inputs: InputSpec, batch: int | None, info: Mapping[str, Any]) -> dict[str, Any]:
    from pliant import __version__

    metadata: dict[str, Any] = {"pliant_version": __version__, "torch_version": str(torch.__version__)}
    if subnet is not None:
        metadata["subnet"] = subnet
    if inputs.vocabulary:
        metadata |= {"tokens": inputs.shape[0], "vocabulary": inputs.vocabulary}
    else:
        metadata |= {"image_size": inputs.shape[-1], "channels": inputs.shape[0]}
    if batch is not None:
        metadata["batch"] = batch
    for key in _DESCRIBED:
        if info.get(key) is not None:
            value = info[key]
            metadata[key] = list(value) if isinstance(value, tuple) else value
    return metadata


def _write_and_load(
    program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, Any]
) -> tuple[str, Eager]:
    if path.suffix.lower() == ".onnx":
        write_onnx(program, path, metadata)
        return run_onnx(path)
    write_program(program, path, metadata)
    return run_program(path)
