"""The ONNX file: written by PyTorch's exporter, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from pliant.export.verify import ExportError, first_line

if TYPE_CHECKING:
    import onnx_ir
    import onnxruntime

__all__ = [
    "EXIT",
    "OUTPUT",
    "open_onnx",
    "read_onnx_metadata",
    "require_onnx",
    "run_onnx",
    "runtime_name",
    "threshold_name",
    "write_onnx",
]

OUTPUT = "logits"
EXIT = "exit"
"""Where a file stops early: which sub-network answered."""

# Metadata properties are texts. These stand as they are; all others are JSON.
_TEXTS = ("pliant_version", "torch_version", "subnet", "model", "data")


def threshold_name(number: int) -> str:
    """Return the name under which a file that stops early stores the threshold of a sub-network, counted from 1."""
    return f"threshold_{number}"


def require_onnx() -> None:
    """Import what writing and running ONNX files needs.

    Raises:
        ExportError: a package is missing; says which extra brings it.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
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

    PyTorch's exporter folds batch norms into the convolutions before them.

    Args:
        program: one input, and outputs as `outputs` names them.
        path: the file.
        metadata: texts, numbers and lists.
        outputs: names.
        arrange: is given the graph and changes it, before it is written.

    Raises:
        ExportError: PyTorch's exporter cannot express the network in ONNX.
    """
    try:
        name = "tokens" if "tokens" in metadata else "images"
        with _quiet():
            exported = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=[name], output_names=list(outputs)
            )
    except Exception as error:
        raise ExportError(f"PyTorch cannot write this network as ONNX: {first_line(error)}") from error
    assert exported is not None
    model = exported.model
    model.producer_name, model.producer_version = "pliant", str(metadata["pliant_version"])
    model.doc_string = None
    model.metadata_props.update(
        {key: str(value) if key in _TEXTS else json.dumps(value) for key, value in metadata.items()}
    )
    values = (
        *model.graph.inputs,
        *model.graph.initializers.values(),
        *(v for node in model.graph for v in node.outputs),
    )
    for part in (model.graph, *model.graph, *values):
        # The exporter's notes for debugging make a small file much longer, and are nobody else's business.
        part.metadata_props.clear()
    if arrange is not None:
        arrange(model)
    exported.save(path, external_data=False)


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


def run_onnx(path: Path) -> tuple[str, Callable[[Tensor], Tensor]]:
    """Load an `.onnx` file; return the runtime's name and the function that runs the file."""
    session = open_onnx(path)
    (given,) = session.get_inputs()

    def run(example: Tensor) -> Tensor:
        (output,) = session.run([OUTPUT], {given.name: example.numpy()})
        return torch.from_numpy(output)

    return runtime_name(), run


def runtime_name() -> str:
    """Return name and version of what runs `.onnx` files here."""
    import onnxruntime

    return f"ONNX Runtime {onnxruntime.__version__}"


def read_onnx_metadata(path: Path) -> dict[str, Any]:
    """Read what `write_onnx` was given as `metadata`."""
    import onnx

    entries = onnx.load(path, load_external_data=False).metadata_props
    return {entry.key: entry.value if entry.key in _TEXTS else json.loads(entry.value) for entry in entries}


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
