"""Post-training quantization to int8: of an ONNX file by ONNX Runtime, of a program for XNNPACK by torchao."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from pliant.core.errors import first_line
from pliant.core.inputs import InputSpec
from pliant.export.onnx import properties_of
from pliant.export.verify import ExportError
from pliant.runtime.inputs import inputs_in
from pliant.runtime.runtimes import RUNTIMES, Runtime

if TYPE_CHECKING:
    import numpy
    import onnx

__all__ = [
    "INT8_TOLERANCE",
    "calibration_batches",
    "quantize_",
    "quantized",
    "refuse_unquantizable",
    "share_of_other_answers",
]

INT8_TOLERANCE = 0.2
"""Share of the calibration images that an int8 file may answer otherwise; a network that broke answers most so."""

_BATCH = 32


def refuse_unquantizable(target: Path, runtime: Runtime) -> None:
    """Refuse a file for a runtime that has no int8 files.

    Raises:
        ExportError: names what is allowed.
    """
    if not runtime.quantized:
        allowed = ", ".join(f"{one.name} ({one.ending})" for one in RUNTIMES.values() if one.quantized)
        raise ExportError(f"{target}: there are no int8 files for {runtime.name}; allowed are {allowed}")


def calibration_batches(
    images: Iterable[Tensor], inputs: InputSpec, batch: int | None, most: int | None = None
) -> list[Tensor]:
    """Return images in batches that the file takes; what is left of a fixed batch is not used.

    Raises:
        ExportError: none are left, or they are not what the network takes.
    """
    if inputs.only is None:
        raise ExportError(f"calibrate_on: int8 files take images alone, and the network takes {inputs}")
    together = torch.cat([one.to("cpu", torch.float32) for one in images] or [torch.empty(0, *inputs.shape)])
    if inputs.vocabulary or together.shape[1:] != inputs.shape:
        shape = "x".join(map(str, together.shape[1:]))
        raise ExportError(f"calibrate_on: got images of {shape}, but the network takes inputs of {inputs.shape}")
    batches = [one for one in together.split(batch or most or _BATCH) if len(one) == (batch or max(1, len(one)))]
    if not batches:
        raise ExportError(f"calibrate_on: got {len(together)} images, expected at least {batch or 1}")
    return batches


def quantize_(path: Path, batches: Sequence[Tensor], metadata: Mapping[str, Any]) -> None:
    """Replace an ONNX file by one whose layers compute in int8, with a scale for each channel of a weight.

    In a network with layer norms these are the layers that have weights. What lies between them stays in float32: in
    int8 it is slower, and OpenVINO mixes up the images of large batches, or refuses the file.

    Args:
        path: the file.
        batches: training images `[batch, *]`, on which the ranges of what layers compute are found.
        metadata: what the new file says of itself.

    Raises:
        ExportError: ONNX Runtime cannot quantize the network.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    name = next(iter(inputs_in(metadata))).name

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self._left: Iterator[numpy.ndarray] = (batch.numpy() for batch in batches)

        def get_next(self) -> dict[str, numpy.ndarray] | None:  # type: ignore[override]
            images = next(self._left, None)
            return None if images is None else {name: images}

    try:
        with _quiet():
            quantize_static(
                path,
                path,
                Images(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                **_layers_with_weights(onnx.load(path).graph),
            )
    except Exception as error:
        raise ExportError(f"ONNX Runtime cannot quantize this network: {first_line(error)}") from error
    model = onnx.load(path)
    model.producer_name, model.producer_version = "pliant", str(metadata["pliant_version"])
    onnx.helper.set_model_props(model, properties_of(metadata))
    onnx.save(model, path)


def quantized(program: ExportedProgram, batches: Sequence[Tensor]) -> nn.Module:
    """Return what a program computes in int8, for XNNPACK, with a scale for each channel of a weight.

    Args:
        program: of a network in eval mode.
        batches: training images `[batch, *]`, on which the ranges of what layers compute are found.

    Raises:
        ExportError: torchao cannot quantize the network.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (  # type: ignore[import-not-found]
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )
        from torchao.quantization.pt2e.quantize_pt2e import (  # type: ignore[import-not-found]
            convert_pt2e,
            prepare_pt2e,
        )

        try:
            quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
            observed = prepare_pt2e(program.module(), quantizer)
            for images in batches:
                observed(images)
            return convert_pt2e(observed)
        except Exception as error:
            raise ExportError(f"torchao cannot quantize this network: {first_line(error)}") from error


def _layers_with_weights(graph: onnx.GraphProto) -> dict[str, Any]:
    """Return what limits the quantizer to layers that have weights; empty for a network without layer norms."""
    if all(node.op_type != "LayerNormalization" for node in graph.node):
        return {}
    weights = {weight.name for weight in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul" and weights.isdisjoint(node.input)]
    return {"op_types_to_quantize": ["Conv", "Gemm", "MatMul"], "nodes_to_exclude": [node.name for node in products]}


def share_of_other_answers(
    eager: Callable[[Tensor], Tensor], runtime: Callable[[Tensor], Tensor], batches: Sequence[Tensor]
) -> float:
    """Return the share of images to which two networks give different classes.

    Raises:
        ExportError: the network itself gives no finite numbers, so that there is nothing to compare with.
    """
    others, count = 0, 0
    for images in batches:
        with torch.no_grad():
            expected, given = eager(images), runtime(images)
        if not expected.isfinite().all():
            raise ExportError("the network's own outputs are not finite (NaN or infinity): nothing to export")
        others += int((expected.argmax(1) != given.argmax(1)).sum())
        count += len(images)
    return others / count


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep away the advice of ONNX Runtime's quantizer, which it writes to the root logger."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
