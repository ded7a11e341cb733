"""Run a file that stops early on every path that it has, and compare each with the network.

The file itself is run, with other thresholds in the place of its own: a path is forced by thresholds that nobody
reaches before its end, and one at its end that everybody does. That one lies just below the confidence that the network
has for the inputs; to get to the last, all lie just above. So the file is also shown to be as sure as the network is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pliant.core.inputs import InputSpec, tensors_of
from pliant.export.onnx import EXIT, open_onnx, threshold_name
from pliant.export.verify import ExportError
from pliant.policy.certainty import confidence_of
from pliant.runtime.session import OUTPUT

__all__ = ["Stop", "check_stops"]

_INPUTS = 4
"""Run on every path, of random numbers."""


@dataclass(frozen=True)
class Stop:
    """A sub-network at which the file can stop.

    Attributes:
        number: place among the policy's sub-networks, counted from 1.
        subnet: its text.
        threshold: how sure it has to be.
        temperature: by which its logits are divided before.
    """

    number: int
    subnet: str
    threshold: float
    temperature: float


@dataclass(frozen=True)
class _Expected:
    """What the network says at a stop: logits of all inputs, how sure it is of each, and how far that may be off."""

    logits: list[Tensor]
    confidences: list[float]
    leeway: float


def check_stops(
    file: Path,
    stops: Sequence[Stop],
    eager: Callable[[Any, str], Tensor],
    inputs: InputSpec,
    measure: str,
    tolerance: float,
) -> float:
    """Run every path of a file, and the file as it is.

    Args:
        file: an `.onnx` file that `nest_` arranged.
        stops: in their order.
        eager: an input and the text of a sub-network -> logits `[1, classes]`, as PyTorch computes them.
        inputs: what both take.
        measure: of confidence.
        tolerance: how far logits may differ, in units of the largest where that exceeds 1.

    Returns:
        The largest difference of any logits, in these units.

    Raises:
        ExportError: a path gives something else than the network, or is taken by other inputs; names it.
    """
    generator = torch.Generator().manual_seed(0)
    examples = [inputs.random(1, generator) for _ in range(_INPUTS)]
    expected = {stop: _expect(stop, examples, eager, measure, tolerance) for stop in stops}
    worst = 0.0
    for stop in stops:
        # Everybody gets here, whoever else is sure, and nobody gets any further.
        others = {before: max(expected[before].confidences) + expected[before].leeway for before in stops}
        if stop is not stops[-1]:
            others = dict.fromkeys(stops, math.inf)
            others[stop] = min(expected[stop].confidences) - expected[stop].leeway
        replaced = {threshold_name(one.number): value for one, value in others.items() if one is not stops[-1]}
        for index, (number, logits) in enumerate(_run(file, examples, replaced)):
            if number != stop.number:
                raise ExportError(
                    f"the path to {stop.subnet} is not taken where it has to be: the file stops at sub-network "
                    f"{number}, not as sure as eager PyTorch is (allowed: {expected[stop].leeway:.0e})"
                )
            worst = max(worst, _difference(stop, logits, expected[stop].logits[index], tolerance))
    return max(worst, _check_as_it_is(file, stops, examples, expected, tolerance))


def _expect(
    stop: Stop, examples: Sequence[Any], eager: Callable[[Any, str], Tensor], measure: str, tolerance: float
) -> _Expected:
    with torch.no_grad():
        logits = [eager(example, stop.subnet) for example in examples]
    try:
        confidences = [confidence_of(one, measure, stop.temperature).item() for one in logits]
    except ValueError as error:
        raise ExportError(f"{stop.subnet}: {error}") from error
    # As far as logits may differ, so far, divided by the temperature, may confidences.
    largest = max(1.0, *(one.abs().max().item() for one in logits))
    return _Expected(logits, confidences, tolerance * max(1.0, largest / stop.temperature))


def _check_as_it_is(
    file: Path, stops: Sequence[Stop], examples: Sequence[Any], expected: Mapping[Stop, _Expected], tolerance: float
) -> float:
    """Run the file with its own thresholds: every input stops where the policy says."""
    worst = 0.0
    for index, (number, logits) in enumerate(_run(file, examples, {})):
        allowed = _may_stop_at(stops, index, expected)
        stop = next((stop for stop in allowed if stop.number == number), None)
        if stop is None:
            raise ExportError(
                f"an input stops at sub-network {number} of the policy, and not at {allowed[0].subnet}, as in PyTorch"
            )
        worst = max(worst, _difference(stop, logits, expected[stop].logits[index], tolerance))
    return worst


def _may_stop_at(stops: Sequence[Stop], index: int, expected: Mapping[Stop, _Expected]) -> list[Stop]:
    """Return the stops at which an input may leave: several, where its confidence is at a threshold."""
    allowed = []
    for stop in stops:
        above = expected[stop].confidences[index] - stop.threshold
        if stop is stops[-1] or above >= -expected[stop].leeway:
            allowed.append(stop)
        if above > expected[stop].leeway:
            break
    return allowed


def _difference(stop: Stop, given: Tensor, expected: Tensor, tolerance: float) -> float:
    scale = max(1.0, expected.abs().max().item())
    same = given.shape == expected.shape
    difference = (given - expected).abs().max().item() / scale if same else math.inf
    if not difference <= tolerance:
        raise ExportError(
            f"the path to {stop.subnet} differs from eager PyTorch by {difference:.2e} (allowed: {tolerance:.0e})"
        )
    return difference


def _run(file: Path, examples: Sequence[Any], replaced: Mapping[str, float]) -> list[tuple[int, Tensor]]:
    session = open_onnx(file, replaced)
    names = [one.name for one in session.get_inputs()]
    answers = []
    for example in examples:
        given = dict(zip(names, (tensor.numpy() for tensor in tensors_of(example)), strict=True))
        logits, number = map(torch.from_numpy, session.run([OUTPUT, EXIT], given))
        answers.append((int(number.item()), logits))
    return answers
