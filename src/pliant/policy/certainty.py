"""How sure an answer is: measures of confidence, of logits alone.

Letters of shapes: N inputs, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["MEASURES", "confidence_of", "max_softmax", "refuse_unknown_measure", "unchecked_confidence"]


def max_softmax(logits: Tensor) -> Tensor:
    """Return the largest probability, from 1 / C to 1; this is what MSDNet and IMTA decide by."""
    return logits.softmax(dim=1).amax(dim=1)


def entropy(logits: Tensor) -> Tensor:
    """Return 1 - H / log C, where H is the entropy of the probabilities: from 0, all alike, to 1, one alone."""
    logs = logits.log_softmax(dim=1)
    return 1 + (logs.exp() * logs).sum(dim=1) / math.log(logits.shape[1])


def margin(logits: Tensor) -> Tensor:
    """Return by how much the largest probability exceeds the second: from 0 to 1."""
    first, second = logits.softmax(dim=1).topk(2, dim=1).values.unbind(dim=1)
    return first - second


MEASURES: dict[str, Callable[[Tensor], Tensor]] = {"max_softmax": max_softmax, "entropy": entropy, "margin": margin}
"""By name, what maps logits `[N, C]` to confidences `[N]`; a higher one is surer."""


def refuse_unknown_measure(measure: str) -> None:
    """Refuse a measure that does not exist.

    Raises:
        ValueError: names what is allowed.
    """
    if measure not in MEASURES:
        raise ValueError(f"no measure of confidence {measure!r}; allowed are {', '.join(MEASURES)}")


def confidence_of(logits: Tensor, measure: str = "max_softmax", temperature: float = 1.0) -> Tensor:
    """Return how sure answers are.

    Args:
        logits: `[N, C]`, of any floating type.
        measure: which, by its name in `MEASURES`.
        temperature: the logits are divided by it.

    Returns:
        Confidences `[N]` in float32, so that a threshold means the same on every device and in every type.

    Raises:
        ValueError: an unknown measure, logits of another shape, fewer than two classes, or logits not finite.
    """
    refuse_unknown_measure(measure)
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"logits have the shape {list(logits.shape)}; expected are [inputs, classes], 2 classes or more"
        )
    # One sum is faster than a look at each, and finite only if they are; not the other way round, hence both.
    if not math.isfinite(logits.sum(dtype=torch.float32)) and not logits.isfinite().all():
        bad = int((~logits.isfinite()).any(dim=1).nonzero()[0])
        raise ValueError(f"the logits of input {bad} are not finite, so that nobody can say how sure they are")
    return unchecked_confidence(logits, measure, temperature)


def unchecked_confidence(logits: Tensor, measure: str, temperature: float) -> Tensor:
    """Return what `confidence_of` does and refuse nothing, so that it can be traced: arithmetic alone, `[N]`."""
    logits = logits.to(torch.float32)
    # The same probabilities, and nothing leaves the range of numbers, however low the temperature.
    return MEASURES[measure]((logits - logits.amax(dim=1, keepdim=True)) / temperature)
