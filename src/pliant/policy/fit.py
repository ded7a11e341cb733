"""From logits of validation images to policies for budgets, and from policies to what they give on other images.

Letters of shapes: K sub-networks, N inputs, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pliant.policy.calibration import find_temperature, refuse_unusable
from pliant.policy.certainty import confidence_of, refuse_unknown_measure
from pliant.policy.confidence import ConfidencePolicy
from pliant.policy.thresholds import average_cost, find_for_budgets, refuse_costs

__all__ = ["anytime_rows", "budgeted_row", "budgets_between", "fit_policies"]


def fit_policies(
    logits: Tensor,
    labels: Tensor,
    *,
    subnets: Sequence[str],
    costs: Sequence[float],
    budgets: Sequence[float],
    measure: str = "max_softmax",
    calibrate: bool = False,
    fingerprint: str = "",
) -> list[ConfidencePolicy]:
    """Find a policy for each budget, by the published procedure of budgeted batch classification.

    Args:
        logits: of every sub-network for every validation image, `[K, N, C]`.
        labels: class of each image, int64 `[N]`.
        subnets: texts of the sub-networks, in the order in which they are tried.
        costs: of an image that each answers, all that was computed for it before counted; rising.
        budgets: average costs of an image, in the same unit.
        measure: of confidence.
        calibrate: find a temperature for each sub-network first; the published procedure does without.
        fingerprint: of the network; goes into the policies.

    Returns:
        Policies in the order of the budgets. Where a budget cannot be spent exactly, the most expensive one below.

    Raises:
        ValueError: logits, labels, sub-networks and costs that do not fit together, costs that do not rise, a
            validation set that is empty or of one class, logits that are not finite, an unknown measure, or a budget
            below what the first sub-network costs.
    """
    refuse_unknown_measure(measure)
    refuse_costs(costs, subnets)
    refuse_unusable(logits, labels)
    if len(logits) != len(subnets):
        raise ValueError(f"logits of {len(logits)} sub-networks, but {len(subnets)} names; expected one each")
    temperatures = [find_temperature(answers, labels) for answers in logits] if calibrate else [1.0] * len(logits)
    confidences = torch.stack(
        [
            confidence_of(answers, measure, temperature)
            for answers, temperature in zip(logits, temperatures, strict=True)
        ]
    )
    return [
        ConfidencePolicy(
            subnets=tuple(subnets),
            thresholds=found.thresholds,
            num_classes=logits.shape[2],
            measure=measure,
            temperatures=tuple(temperatures) if calibrate else (),
            costs=tuple(costs),
            budget=budget,
            expected_cost=found.cost,
            expected_shares=found.shares,
            fingerprint=fingerprint,
        )
        for budget, found in zip(budgets, find_for_budgets(confidences, costs, budgets, first=subnets[0]), strict=True)
    ]


def budgets_between(costs: Sequence[float], count: int) -> list[float]:
    """Return evenly spaced budgets, from what the first sub-network costs to what the last does; one = their middle.

    Raises:
        ValueError: no budget is wanted.
    """
    if count < 1:
        raise ValueError(f"budgets={count}: expected at least 1")
    if count == 1:
        return [(costs[0] + costs[-1]) / 2]
    # The last is the cost itself and not a sum that misses it by its last digit.
    return [costs[0] + (costs[-1] - costs[0]) * place / (count - 1) for place in range(count - 1)] + [costs[-1]]


def budgeted_row(policy: ConfidencePolicy, logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Return what a policy gives on images that it was not found on.

    Args:
        policy: with costs in 10^9 multiply-accumulates.
        logits: `[K, N, C]`.
        labels: int64 `[N]`.

    Returns:
        `budget`, and of these images `gmacs`, the average of one, `acc1` in percent, and `shares`, which each
        sub-network answered.

    Raises:
        ValueError: the logits do not fit the policy or the labels, or the policy knows no costs.
    """
    if not policy.costs:
        raise ValueError("this policy does not say what its sub-networks cost")
    answers, chosen = policy.apply(logits)
    shares = [count / len(chosen) for count in torch.bincount(chosen, minlength=len(logits)).tolist()]
    row: dict[str, Any] = {} if policy.budget is None else {"budget": policy.budget}
    return row | {
        "gmacs": average_cost(shares, policy.costs),
        "acc1": _acc1(answers, labels),
        "shares": dict(zip(policy.subnets, shares, strict=True)),
    }


def anytime_rows(
    logits: Tensor, labels: Tensor, *, subnets: Sequence[str], costs: Sequence[float]
) -> list[dict[str, Any]]:
    """Return what the network gives if it is stopped after so many multiply-accumulates: the last answer it has.

    Args:
        logits: `[K, N, C]`.
        labels: int64 `[N]`.
        subnets: in the order in which they are tried.
        costs: of each, all that was computed before counted, in 10^9 multiply-accumulates.

    Returns:
        Rows of `subnet`, `gmacs`, and `acc1` in percent.

    Raises:
        ValueError: costs that do not rise.
    """
    refuse_costs(costs, subnets)
    return [
        {"subnet": subnet, "gmacs": cost, "acc1": _acc1(answers, labels)}
        for subnet, cost, answers in zip(subnets, costs, logits, strict=True)
    ]


def _acc1(logits: Tensor, labels: Tensor) -> float:
    if len(logits) != len(labels) or not len(labels):
        raise ValueError(f"{len(logits)} answers and {len(labels)} labels; expected as many, and at least 1")
    return 100 * int((logits.argmax(dim=1) == labels).sum()) / len(labels)
