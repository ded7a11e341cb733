"""The PyTorch program file (`.pt2`), and the trace that all file formats start from."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from pliant.core.errors import first_line
from pliant.core.inputs import InputSpec
from pliant.exits.modules import EarlyExit
from pliant.export.verify import ExportError
from pliant.runtime.archive import METADATA_FILE

__all__ = ["trace", "write_program"]


def trace(
    network: nn.Module, inputs: InputSpec, batch: int | None, name: str = "", *, most: int | None = None
) -> ExportedProgram:
    """Trace a network in eval mode on the CPU.

    Args:
        network: maps `[batch, *inputs.shape]` to one tensor.
        inputs: what it takes.
        batch: a fixed batch size; none = any.
        name: what errors call the network; empty = as its class.
        most: inputs at once that any is meant to be; none = there is no limit.

    Raises:
        ExportError: PyTorch cannot trace the network.
    """
    # An example batch of 1 would be taken as a constant by the tracer.
    example = inputs.random(batch or 2)
    shapes = None if batch else _any_batch(network, most)
    try:
        # A pass that ends early leaves by an exception, which the tracer that runs Python loses its place over.
        ends_early = any(isinstance(module, EarlyExit) for module in network.modules())
        program = torch.export.export(network, (example,), dynamic_shapes=shapes, strict=ends_early)
    except Exception as error:
        hint = "" if batch else "; if it needs a fixed batch size, pass batch="
        name = name or type(network).__name__
        raise ExportError(f"PyTorch cannot trace {name}: {first_line(error)}{hint}") from error
    for node in program.graph.nodes:
        # Traces quote the paths of whoever exported; they have no place in a file that is given away.
        node.meta.pop("stack_trace", None)
    return program


def _any_batch(network: nn.Module, most: int | None) -> Any:
    """Say that the first dimension of the one input is open, in the form that the network's forward asks for."""
    first = {0: Dim("batch", min=1, max=most)}
    parameter = next(iter(inspect.signature(network.forward).parameters.values()))
    return ((first,),) if parameter.kind is parameter.VAR_POSITIONAL else (first,)


def write_program(program: ExportedProgram, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a `.pt2` file; `metadata` becomes a JSON file within it."""
    torch.export.save(program, path, extra_files={METADATA_FILE: json.dumps(metadata)})
