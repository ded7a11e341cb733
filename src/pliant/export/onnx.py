"""The ONNX file, written by PyTorch's exporter."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.export import ExportedProgram

from pliant.core.errors import first_line
from pliant.export.verify import ExportError
from pliant.runtime.inputs import inputs_in
from pliant.runtime.session import OUTPUT, TEXTS, said_by

if TYPE_CHECKING:
    import onnx_ir
    import onnxruntime

__all__ = [
    "EXIT",
    "open_onnx",
    "properties_of",
    "read_onnx_metadata",
    "require_onnx",
    "runtime_name",
    "save_onnx",
    "threshold_name",
    "to_onnx",
    "write_onnx",
]

EXIT = "exit"
"""Where a file stops early: which sub-network answered."""


def threshold_name(number: int) -> str:
    """Return the name under which a file that stops early stores the threshold of a sub-network, counted from 1."""
    return f"threshold_{number}"


def require_onnx() -> None:
    """Import what writing ONNX files needs.

    Raises:
        ExportError: a package is missing; says which extra brings it.
    """
    for package in ("onnx", "onnxscript"):
        try:
            __import__(package)
        except ImportError:
            raise ExportError(
                f"an .onnx file needs the package {package}, which is not installed: pip install {package}"
            ) from None


def write_onnx(
    program: ExportedProgram,
    path: Path,
    metadata: Mapping[str, Any],
    *,
    outputs: Sequence[str] = (OUTPUT,),
    arrange: Callable[[onnx_ir.Model], None] | None = None,
) -> None:
    """Write an `.onnx` file with its weights inside; `metadata` becomes its metadata properties.

    Args:
        program: inputs as the metadata says, and outputs as `outputs` names them.
        path: the file.
        metadata: texts, numbers and lists.
        outputs: names.
        arrange: is given the graph and changes it, before it is written.

    Raises:
        ExportError: PyTorch's exporter cannot express the network in ONNX.
    """
    model = to_onnx(program, outputs, inputs=[one.name for one in inputs_in(metadata)])
    if arrange is not None:
        arrange(model)
    save_onnx(model, path, metadata)


def to_onnx(
    program: ExportedProgram, outputs: Sequence[str], *, inputs: Sequence[str], fold_norms: bool = True
) -> onnx_ir.Model:
    """Return a traced network as an ONNX graph, without the exporter's notes.

    Args:
        program: inputs and outputs as `inputs` and `outputs` name them.
        outputs: names.
        inputs: names.
        fold_norms: batch norms are folded into the convolutions before them, as PyTorch's exporter does. Without, all
            tensors are those of the network.

    Raises:
        ExportError: PyTorch's exporter cannot express the network in ONNX.
    """
    try:
        with _quiet():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=list(inputs),
                output_names=list(outputs),
                optimize=fold_norms,
            )
            assert exported is not None
            if not fold_norms:
                _tidy(exported.model)
    except Exception as error:
        raise ExportError(f"PyTorch cannot write this network as ONNX: {first_line(error)}") from error
    graph = exported.model.graph
    values = (*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs))
    for part in (graph, *graph, *values):
        # The exporter's notes for debugging make a small file much longer, and are nobody else's business.
        part.metadata_props.clear()
    return exported.model


def _tidy(model: onnx_ir.Model) -> None:
    """Do what the exporter does to simplify a graph, except that no operators are joined."""
    from onnx_ir.passes import common
    from onnxscript import optimizer

    common.InlinePass()(model)
    optimizer.fold_constants(model)
    common.RemoveUnusedNodesPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.CommonSubexpressionEliminationPass()(model)


def save_onnx(model: onnx_ir.Model, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a graph as an `.onnx` file with its weights inside; `metadata` becomes its metadata properties."""
    import onnx_ir

    model.producer_name, model.producer_version = "pliant", str(metadata["pliant_version"])
    model.doc_string = None
    model.metadata_props.clear()
    model.metadata_props.update(properties_of(metadata))
    onnx_ir.save(model, path)


def properties_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return metadata as texts, which is all that a file can hold."""
    return {key: str(value) if key in TEXTS else json.dumps(value) for key, value in metadata.items()}


def open_onnx(path: Path, replaced: Mapping[str, float] | None = None) -> onnxruntime.InferenceSession:
    """Load an `.onnx` file; `replaced` are other values for single numbers that are stored in it, by their names.

    Raises:
        ExportError: the runtime does not take it.
    """
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    values = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(numpy.array(value, dtype=numpy.float32))
        for name, value in (replaced or {}).items()
    }
    for name, value in values.items():
        options.add_initializer(name, value)
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"ONNX Runtime does not load the exported network: {first_line(error)}") from error


def runtime_name() -> str:
    """Return name and version of what runs `.onnx` files here."""
    import onnxruntime

    return f"ONNX Runtime {onnxruntime.__version__}"


def read_onnx_metadata(path: Path) -> dict[str, Any]:
    """Read what `write_onnx` was given as `metadata`."""
    import onnx

    entries = onnx.load(path, load_external_data=False).metadata_props
    return said_by({entry.key: entry.value for entry in entries})


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own logs and deprecation warnings away from the person who exports."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
