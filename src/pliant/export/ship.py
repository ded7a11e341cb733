"""`export`: take a sub-network out, write it, run the file in its own runtime; keep it only if it agrees."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pliant.core.adaptive import AdaptiveModule
from pliant.core.inputs import InputSpec, logits_of, run_on
from pliant.core.macs import count_gmacs, count_params_m
from pliant.core.subnet import SubNet
from pliant.core.surgery import own_parts_
from pliant.core.wrapped import refuse_wrapped
from pliant.export.aotinductor import write_package
from pliant.export.executorch import write_executorch
from pliant.export.first_sure import export_policy
from pliant.export.gate import export_gate
from pliant.export.int8 import (
    INT8_TOLERANCE,
    calibration_batches,
    quantize_,
    quantized,
    refuse_unquantizable,
    share_of_other_answers,
)
from pliant.export.onnx import read_onnx_metadata, write_onnx
from pliant.export.prepare import Order, beside, describe, fitting_runtime, for_inference
from pliant.export.program import trace, write_program
from pliant.export.report import ExportReport
from pliant.export.switchable import Mode, export_switchable
from pliant.export.verify import TRIED_BATCHES, ExportError, largest_difference, reopened, runs, tried
from pliant.extract import extract
from pliant.policy.confidence import ConfidencePolicy
from pliant.recalibrate import recalibrate_, why_not
from pliant.runtime import ExportedFile
from pliant.runtime.archive import read_archive

__all__ = ["export", "read_metadata"]

Eager = Callable[[Any], Tensor]


def _read_pte(path: Path) -> dict[str, Any]:
    from pliant.runtime.by_executorch import read_info

    return read_info(path)


_WRITERS: dict[str, Callable[[torch.export.ExportedProgram, Path, Mapping[str, Any]], None]] = {
    "onnxruntime": write_onnx,
    "openvino": write_onnx,
    "pytorch": write_program,
    "aotinductor": write_package,
    "executorch": write_executorch,
}
_READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    ".onnx": read_onnx_metadata,
    ".pt2": read_archive,
    ".pte": _read_pte,
}


def export(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    runtime: str | None = None,
    subnet: str | SubNet | None = None,
    image_size: int | None = None,
    example: Any = None,
    batch: int | None = None,
    policy: ConfidencePolicy | Literal["gate"] | None = None,
    switchable: Mode | None = None,
    tolerance: float | None = None,
    recalibrate_on: Iterable[Tensor] | None = None,
    calibrate_on: Iterable[Tensor] | None = None,
    info: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Write one sub-network, all, a plain network, or a network with a policy, as a file that runs without pliant.

    The network is exported in eval mode, in float32, from a copy; `model` is not changed. The file is
    written beside the target, loaded by the runtime it is for, on the CPU, run on seeded inputs and compared
    with `model` in eager PyTorch. Only a file that agrees takes the target's place; otherwise nothing is left
    behind and a file that was there stays.

    Args:
        model: an adapted or a plain network that maps its inputs to logits: images, tokens, or whatever its example
            is. Of several inputs, each tensor is one of the file.
        path: the file; `.onnx`, `.pt2` or `.pte` chooses the format. Folders on the way are made.
        runtime: what runs the file: `onnxruntime` or `openvino` (`.onnx`), `pytorch` or `aotinductor` (`.pt2`),
            `executorch` (`.pte`); none = the first for the ending.
        subnet: which sub-network; none = the super-net.
        image_size: height and width of the images in pixels, or the number of tokens; none = as the example is,
            else `info["image_size"]`, else what a network of a library was made for.
        example: one input, as for `adapt_`; none = the one that the model was adapted with.
        batch: a fixed batch size for runtimes that need one; none = any number of images, and one with a policy.
        policy: the file answers with the first of the policy's sub-networks that is sure enough, and what lies behind
            does not run; ONNX only. It has two outputs, `logits` `[1, classes]` and `exit` `[1]`: which of
            `policy.subnets` answered, counted from 1. `gate`: the model's own gate chooses, and the outputs are
            `logits` and `route` `[1]`, the place in `model.routes`, counted from 0.
        switchable: the file has all sub-networks, 4096 at most, and which one runs is an input; ONNX only. Of a model
            with depths `skip`, bool `[stages]`; of one with widths `width`, int64, the place of the width counted from
            0, the smallest first. `fast` stores what every branch runs, norms folded into its convolutions; `compact`
            stores all weights once, and leaves it to the runtime to fold them when it loads the file.
        tolerance: how far outputs may differ, in units of the largest output where that exceeds 1; of an int8 file
            the share of the images in `calibrate_on` to which it may give another class. None = 1e-4, and 0.2.
        recalibrate_on: training images in batches, varied as in the training, from which the norm statistics of a
            sub-network that was not trained are taken anew, as `pliant.recalibrated` does; a trained one keeps
            its own. None = all as in the model.
        calibrate_on: training images in batches, as at inference, on which the file is quantized to int8; for ONNX
            Runtime, OpenVINO and ExecuTorch, and of one sub-network. None = float32.
        info: what to write into the file beside versions, sub-network and image size, such as
            `class_names`, `mean`, `std`, `gmacs` (keys that are not described there are ignored). For a switchable
            file also `table`, rows of a `Table`, and `measured`, under which circumstances.

    Raises:
        ExportError: (a ValueError) unknown ending, a missing runtime, a network that cannot be exported,
            or a file that differs from eager by more than `tolerance`.
        ValueError: no such sub-network, a wrapped model, an image or batch size that makes no sense, or a policy that
            was found for another network.
    """
    refuse_wrapped(model, "export")
    if tolerance is None:
        tolerance = 1e-4 if calibrate_on is None else INT8_TOLERANCE
    order = Order(
        target=Path(path),
        runtime=fitting_runtime(Path(path), runtime),
        image_size=image_size,
        example=example,
        batch=batch,
        tolerance=tolerance,
        info=info or {},
    )
    if policy is not None:
        _refuse_beside_a_policy(
            subnet=subnet, recalibrate_on=recalibrate_on, switchable=switchable, calibrate_on=calibrate_on
        )
        if policy == "gate":
            return export_gate(model, order)
        return export_policy(model, policy, order)
    if switchable is not None:
        _refuse_beside_switchable(subnet=subnet, recalibrate_on=recalibrate_on)
        if calibrate_on is not None:
            raise ExportError(
                "calibrate_on: not together with switchable, since ONNX Runtime's quantizer does not enter conditions; "
                "write an int8 file for each sub-network"
            )
        return export_switchable(model, switchable, order)
    if calibrate_on is not None:
        refuse_unquantizable(order.target, order.runtime)
    return _export_one(model, subnet, order, recalibrate_on, calibrate_on)


def _export_one(
    model: nn.Module,
    subnet: str | SubNet | None,
    order: Order,
    recalibrate_on: Iterable[Tensor] | None,
    calibrate_on: Iterable[Tensor] | None,
) -> ExportReport:
    """Write a file of one sub-network or of a plain network."""
    network, eager, chosen, role = _frozen(model, subnet)
    recalibrated_on = None
    if recalibrate_on is not None and not why_not(model, chosen):
        # The extract shares its tensors with the adapted copy, which therefore still is what the file must agree with.
        recalibrated_on = recalibrate_(network, (images.to("cpu", torch.float32) for images in recalibrate_on))
    own_parts_(network, {})  # else some formats would keep the wider weights that they are parts of
    inputs = order.inputs(model)
    network, eager = _returning_logits(network, eager, inputs)
    costs = {"gmacs": count_gmacs(network, inputs), "params_m": count_params_m(network)}
    metadata = describe(inputs, order.batch, {**costs, **order.info}, most=order.most)
    if chosen is not None:
        metadata["subnet"] = chosen
    if recalibrated_on is not None:
        metadata["recalibrated_on"] = recalibrated_on
    images = []
    if calibrate_on is not None:
        images = calibration_batches(calibrate_on, inputs, order.batch, order.most)
        # An accuracy that is known is that of the network in float32.
        metadata = {key: value for key, value in metadata.items() if key != "acc1"}
        metadata |= {"precision": "int8", "calibrated_on": sum(map(len, images))}
    program = trace(network, inputs, order.batch, most=order.most)
    of_onnx = order.runtime.ending == ".onnx"
    if images and not of_onnx:
        program = trace(quantized(program, images), inputs, order.batch, most=order.most)
    with beside(order.target) as written:
        _WRITERS[order.runtime.name](program, written, metadata)
        if images and of_onnx:
            quantize_(written, images, metadata)
        file = reopened(written, order.runtime)
        version = file.session.version
        difference = _difference(eager, file, inputs, order, images)
        if not difference <= order.tolerance:
            name = f"{role} {chosen}" if chosen else role
            how = f"{difference:.2e} in {version} (allowed: {order.tolerance:.0e})"
            if images:
                share = f"{difference:.1%} of the calibration images in {version} (allowed: {order.tolerance:.0%})"
                how = f"the class of {share}"
            raise ExportError(
                f"{order.target}: not written, because the exported {name} differs from eager PyTorch by {how}"
            )
        del file  # some systems do not move a file that is still mapped
    return order.done(
        inputs,
        difference=difference,
        runtime=version,
        subnet=chosen,
        role=role,
        precision="int8" if images else "float32",
        calibrated_on=metadata.get("calibrated_on"),
        recalibrated_on=recalibrated_on,
    )


def _difference(eager: Eager, file: ExportedFile, inputs: InputSpec, order: Order, images: Sequence[Tensor]) -> float:
    """Return how far a file is from PyTorch; of an int8 file, on the images it was calibrated on."""
    if images:
        return share_of_other_answers(eager, runs(file), images)
    batches = (order.batch,) if order.batch else (*TRIED_BATCHES, *([order.most] if order.most else []))
    return largest_difference(eager, runs(file), inputs, batches)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `export` wrote into a file about itself: versions, sub-network, image size, ...

    Raises:
        ExportError: unknown ending.
    """
    path = Path(path)
    return _READERS[fitting_runtime(path).ending](path)


def _refuse_beside_a_policy(**options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise ExportError(
                f"{name}: not together with a policy, which names its sub-networks and was found for the network as it "
                f"is; leave {name} out"
            )


def _refuse_beside_switchable(**options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise ExportError(
                f"{name}: not together with switchable, since the file has all sub-networks as they were trained; "
                f"leave {name} out"
            )


def _frozen(model: nn.Module, subnet: str | SubNet | None) -> tuple[nn.Module, Eager, str | None, str]:
    """Return the network to export, eager PyTorch to compare it with, the sub-network's name and role."""
    if not isinstance(model, AdaptiveModule):
        if subnet is not None:
            raise ExportError(
                f"subnet: got {str(subnet)!r}, but this {type(model).__name__} has no sub-networks; leave subnet out"
            )
        plain = for_inference(model)
        return plain, partial(run_on, plain), None, "network"
    chosen = model.space.parse("largest" if subnet is None else subnet)
    adapted = for_inference(model)
    # Compared with the adapted network, not with its own extract: a sub-network that was taken out
    # wrongly would agree with itself.
    role = {model.space.largest: "super-net", model.space.smallest: "base-net"}.get(chosen, "sub-network")
    network = extract(adapted, chosen, share=True)
    return network, partial(run_on, adapted, subnet=chosen), str(chosen), role


class _LogitsOnly(nn.Module):
    """A network of transformers that returns its logits and nothing else."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return logits_of(self.network(*args, **kwargs))


def _returning_logits(network: nn.Module, eager: Callable[[Tensor], Any], inputs: InputSpec) -> tuple[nn.Module, Eager]:
    """Run the network once; return it, and its eager twin, such that both give one tensor."""
    name = type(network).__name__
    output = tried(eager, inputs, name)
    if isinstance(output, Tensor):
        return network, eager
    try:
        logits_of(output)
    except ValueError as error:
        raise ExportError(f"{name}: {error}") from error
    return _LogitsOnly(network), lambda example: logits_of(eager(example))
