"""The PyTorch program file (`.pt2`), and the trace that all file formats start from."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_flatten, tree_unflatten

from pliant.core.errors import first_line
from pliant.core.inputs import InputSpec, TensorSpec, run_on, tensors_of
from pliant.exits.modules import EarlyExit
from pliant.export.verify import ExportError
from pliant.runtime.archive import METADATA_FILE

__all__ = ["trace", "write_program"]


def trace(
    network: nn.Module, inputs: InputSpec, batch: int | None, name: str = "", *, most: int | None = None
) -> ExportedProgram:
    """Trace a network in eval mode on the CPU.

    Args:
        network: maps its inputs to one tensor, or several.
        inputs: what it takes; of several the program takes the tensors, in their order.
        batch: a fixed batch size; none = any.
        name: what errors call the network; empty = as its class.
        most: inputs at once that any is meant to be; none = there is no limit.

    Raises:
        ExportError: PyTorch cannot trace the network.
    """
    # An example batch of 1 would be taken as a constant by the tracer.
    example = tensors_of(inputs.random(batch or 2))
    network, name = network if inputs.only else _Positional(network, inputs), name or type(network).__name__
    shapes = None if batch else _any_batch(network, inputs, most)
    try:
        # A pass that ends early leaves by an exception, which the tracer that runs Python loses its place over.
        ends_early = any(isinstance(module, EarlyExit) for module in network.modules())
        program = torch.export.export(network, tuple(example), dynamic_shapes=shapes, strict=ends_early)
    except Exception as error:
        hint = "" if batch else "; if it needs a fixed batch size, pass batch="
        raise ExportError(f"PyTorch cannot trace {name}: {first_line(error)}{hint}") from error
    for node in program.graph.nodes:
        # Traces quote the paths of whoever exported; they have no place in a file that is given away.
        node.meta.pop("stack_trace", None)
    return program


class _Positional(nn.Module):
    """A network that takes the tensors of its inputs one by one, and has all other arguments in it."""

    def __init__(self, network: nn.Module, inputs: InputSpec) -> None:
        super().__init__()
        self.network = network
        self._leaves, self._structure = tree_flatten(inputs.example)

    def forward(self, *tensors: Tensor) -> Any:
        left = iter(tensors)
        leaves = [next(left) if isinstance(leaf, TensorSpec) else leaf for leaf in self._leaves]
        return run_on(self.network, tree_unflatten(leaves, self._structure))


def _any_batch(network: nn.Module, inputs: InputSpec, most: int | None) -> Any:
    """Say that the first dimension of the inputs is open, in the form that the network's forward asks for."""
    first = {0: Dim("batch", min=1, max=most)}
    shapes = tuple(first if inputs.is_batched(one) else None for one in inputs.tensors)
    parameter = next(iter(inspect.signature(network.forward).parameters.values()))
    return (shapes,) if parameter.kind is parameter.VAR_POSITIONAL else shapes


def write_program(program: ExportedProgram, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a `.pt2` file; `metadata` becomes a JSON file within it."""
    torch.export.save(program, path, extra_files={METADATA_FILE: json.dumps(metadata)})
