"""The ONNX file: written by PyTorch's exporter, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from pliant.export.verify import ExportError, first_line

__all__ = ["OUTPUT", "read_onnx_metadata", "require_onnx", "run_onnx", "write_onnx"]

OUTPUT = "logits"

# Metadata properties are texts. These stand as they are; all others are JSON.
_TEXTS = ("pliant_version", "torch_version", "subnet", "model", "data")


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


def write_onnx(program: ExportedProgram, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write an `.onnx` file with its weights inside; `metadata` becomes its metadata properties.

    PyTorch's exporter folds batch norms into the convolutions before them.

    Raises:
        ExportError: PyTorch's exporter cannot express the network in ONNX.
    """
    try:
        name = "tokens" if "tokens" in metadata else "images"
        with _quiet():
            exported = torch.onnx.export(program, dynamo=True, verbose=False, input_names=[name], output_names=[OUTPUT])
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
    exported.save(path, external_data=False)


def run_onnx(path: Path) -> tuple[str, Callable[[Tensor], Tensor]]:
    """Load an `.onnx` file; return the runtime's name and the function that runs the file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    (given,) = session.get_inputs()

    def run(example: Tensor) -> Tensor:
        (output,) = session.run([OUTPUT], {given.name: example.numpy()})
        return torch.from_numpy(output)

    return f"ONNX Runtime {onnxruntime.__version__}", run


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
