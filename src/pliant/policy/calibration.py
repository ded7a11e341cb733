"""Whether confidences are the shares of right answers that they pretend to be, and how to make them so."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pliant.policy.certainty import confidence_of

__all__ = ["TEMPERATURES", "calibration_error", "find_temperature", "refuse_unusable"]

TEMPERATURES = (0.01, 100.0)
"""The range that is searched. Where every answer is right, the best temperature would be zero."""


def find_temperature(logits: Tensor, labels: Tensor) -> float:
    """Find the temperature by which logits are divided, so that the labels become as likely as they can.

    The negative log-likelihood is convex in 1 / temperature, so its slope has one zero, and bisection finds it:
    nothing is random, and no step size is to be chosen.

    Args:
        logits: `[inputs, classes]`, of images held out from training.
        labels: class of each, int64 `[inputs]`.

    Returns:
        A number within `TEMPERATURES`; 1 where the best lies outside, as it does where every answer is right.

    Raises:
        ValueError: logits and labels do not fit together, are not finite, or have fewer than two classes.
    """
    refuse_unusable(logits[None], labels)
    scores = logits.detach().to("cpu", torch.float64)
    right = scores.gather(1, labels.detach().cpu()[:, None])[:, 0]

    def slope(inverse: float) -> float:
        expected = ((scores * inverse).softmax(dim=1) * scores).sum(dim=1)
        return float((expected - right).mean())

    low, high = (math.log(1 / temperature) for temperature in reversed(TEMPERATURES))
    if slope(math.exp(low)) >= 0 or slope(math.exp(high)) <= 0:
        # Every answer is right, or none says anything: no temperature within the range is the best, and one at its
        # end would make all inputs equally sure, so that no threshold could tell them apart.
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if slope(math.exp(middle)) > 0:
            high = middle
        else:
            low = middle
    return math.exp(-(low + high) / 2)


def calibration_error(logits: Tensor, labels: Tensor, *, temperature: float = 1.0, bins: int = 15) -> float:
    """Return the expected calibration error, from 0 to 1.

    Answers are put into bins of equal width by their largest probability; the error is the difference between mean
    probability and share of right answers, averaged over bins, each weighted by how many answers it holds.

    Args:
        logits: `[inputs, classes]`.
        labels: class of each, int64 `[inputs]`.
        temperature: the logits are divided by it.
        bins: how many.

    Raises:
        ValueError: logits and labels do not fit together or are not finite, or there is no bin.
    """
    if bins < 1:
        raise ValueError(f"bins={bins}: expected at least 1")
    _refuse_unfit(logits[None], labels)
    confidences = confidence_of(logits, temperature=temperature).double()
    right = (logits.argmax(dim=1) == labels).double()
    # The right edge belongs to its bin, so that a confidence of 1 has one.
    places = (confidences * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.float64, device=logits.device).index_add_(0, places, confidences - right)
    return float(gaps.abs().sum() / len(labels))


def refuse_unusable(logits: Tensor, labels: Tensor) -> None:
    """Refuse what nothing can be learned from.

    Args:
        logits: `[sub-networks, inputs, classes]`.
        labels: int64 `[inputs]`.

    Raises:
        ValueError: they do not fit together, are not finite, or the labels name fewer than two classes.
    """
    _refuse_unfit(logits, labels)
    if int(labels.min()) == int(labels.max()):
        raise ValueError(
            f"all {len(labels)} validation images are of class {int(labels[0])}: confidences of one class say nothing "
            "of the others; hold out images of all classes"
        )


def _refuse_unfit(logits: Tensor, labels: Tensor) -> None:
    if logits.dim() != 3 or labels.shape != logits.shape[1:2]:
        raise ValueError(
            f"logits {list(logits.shape)} and labels {list(labels.shape)} do not fit together; expected are "
            "[sub-networks, inputs, classes] and [inputs]"
        )
    if not len(labels):
        raise ValueError("the validation set is empty; hold out some images")
    if int(labels.min()) < 0 or int(labels.max()) >= logits.shape[2]:
        raise ValueError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, but the logits are of {logits.shape[2]} "
            f"classes; allowed are 0 to {logits.shape[2] - 1}"
        )
    if not logits.isfinite().all():
        which, bad = (~logits.isfinite()).any(dim=2).nonzero()[0].tolist()
        raise ValueError(f"the logits of sub-network {which} for input {bad} are not finite")
