"""Compare an exported file, run by its own runtime, with the network it came from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pliant.core.errors import first_line
from pliant.core.inputs import InputSpec, tensors_of
from pliant.runtime import ExportedFile, load
from pliant.runtime.runtimes import Runtime

__all__ = ["TRIED_BATCHES", "ExportError", "largest_difference", "reopened", "runs", "tried"]

# Two batch sizes show that the batch is dynamic; one of them is 1, which tracers like to treat as a constant.
TRIED_BATCHES = (1, 3)


class ExportError(ValueError):
    """An exported file could not be made, or does not compute what the network computes."""


def reopened(written: Path, runtime: Runtime) -> ExportedFile:
    """Load a file that was just written, as whoever gets it will.

    Raises:
        ExportError: the runtime does not take it.
    """
    try:
        return load(written, runtime=runtime.name)
    except ValueError as error:
        raise ExportError(str(error).replace(str(written), written.name)) from error


def runs(file: ExportedFile, subnet: str | None = None) -> Callable[[Any], Tensor]:
    """Return what maps an example to a tensor as a sub-network of a file does."""
    return lambda example: torch.from_numpy(file([tensor.numpy() for tensor in tensors_of(example)], subnet))


def tried(run: Callable[[Any], Any], inputs: InputSpec, name: str) -> Any:
    """Run a network once, and return what it gives.

    Raises:
        ExportError: it does not take such inputs; `name` is what the error calls it.
    """
    try:
        with torch.no_grad():
            return run(inputs.random(1, torch.Generator().manual_seed(0)))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever it is, the network does not take this
        taken = inputs.shape if inputs.only else inputs
        raise ExportError(
            f"image_size, example: {name} does not take inputs of {taken}: {first_line(error)}; pass another size, or "
            "example=, one input"
        ) from error


def largest_difference(
    eager: Callable[[Any], Tensor],
    runtime: Callable[[Any], Tensor],
    inputs: InputSpec,
    batches: Sequence[int],
    seed: int = 0,
) -> float:
    """Run both on the same random inputs and return how far apart they are.

    Args:
        eager: the network as PyTorch runs it, an example -> one tensor.
        runtime: the exported file in its runtime; same signature.
        inputs: what both take.
        batches: the batch sizes to try, each with inputs of its own.
        seed: of the inputs.

    Returns:
        The largest absolute difference of any output, in units of the largest absolute output where
        that exceeds 1; infinite where only one of the two gives a finite number.

    Raises:
        ExportError: the network itself gives no finite numbers, so that there is nothing to compare with.
    """
    generator = torch.Generator().manual_seed(seed)
    worst = 0.0
    for batch in batches:
        example = inputs.random(batch, generator)
        with torch.no_grad():
            expected, given = eager(example), runtime(example)
        if not expected.isfinite().all():
            raise ExportError("the network's own outputs are not finite (NaN or infinity): nothing to export")
        if given.shape != expected.shape:
            return math.inf
        scale = max(1.0, expected.abs().max().item())
        difference = (given - expected).abs().max().item() / scale
        # NaN compares as neither smaller nor larger: it must count as the worst, not vanish in max().
        worst = max(worst, difference) if math.isfinite(difference) else math.inf
    return worst
