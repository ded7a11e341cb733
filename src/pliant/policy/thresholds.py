"""Budgeted batch classification: thresholds of confidence with which inputs cost what was asked, on average.

The published procedure (of MSDNet and IMTA): the share of inputs that leaves at exit k
shall be proportional to q ** k, and validation images say at which confidence that many leave.

Letters of shapes: K exits, or any sub-networks in their order; N inputs; Q values of q.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

__all__ = [
    "Found",
    "average_cost",
    "exit_shares",
    "find_for_budgets",
    "find_thresholds",
    "refuse_budgets",
    "refuse_costs",
]

_WALKS = 300
"""Values of q that are tried by thresholds; where there are more, so many, evenly spaced,"""
_NEAR = 16
"""and for each budget those whose shares, were there no ties, would cost just less."""


@dataclass(frozen=True)
class Found:
    """What was found for one budget.

    Attributes:
        q: ratio of the shares of neighbouring exits.
        thresholds: for each exit; the last is minus infinity.
        shares: of the validation images, which leave at each exit.
        cost: average of one validation image.
    """

    q: float
    thresholds: tuple[float, ...]
    shares: tuple[float, ...]
    cost: float


def exit_shares(q: float, count: int) -> list[float]:
    """Return the shares proportional to `q ** k`, which add up to 1; at q = 0 all leave at the first exit."""
    if not math.isfinite(q) or q < 0 or count < 1:
        raise ValueError(f"q={q:g}, {count} exits: expected a finite q, 0 or more, and 1 exit or more")
    # Divided by the largest power, which would leave the range of numbers.
    powers = [q ** (k if q <= 1 else k - count + 1) for k in range(count)]
    return [power / sum(powers) for power in powers]


def find_thresholds(confidences: Tensor, shares: Sequence[float]) -> tuple[float, ...]:
    """Find thresholds with which so many inputs leave.

    Exit by exit, the inputs that are still inside are walked from the surest on; the threshold is the confidence of
    the `floor(N * share)`-th, and all that reach it leave. Of inputs that are equally sure all leave, so that more
    than asked may. Where the share is less than one input, or more than are still inside, nobody leaves.

    Args:
        confidences: `[K, N]`.
        shares: which are wanted, one an exit.

    Returns:
        A threshold for each exit: infinity where nobody leaves, minus infinity for the last.

    Raises:
        ValueError: another number of shares than of exits, or no inputs.
    """
    if confidences.dim() != 2 or len(shares) != len(confidences) or not confidences.shape[1]:
        raise ValueError(f"{len(shares)} shares and confidences {list(confidences.shape)}; expected [shares, inputs]")
    return _walk(confidences, *confidences.sort(dim=1, descending=True), shares)[0]


def average_cost(shares: Sequence[float], costs: Sequence[float]) -> float:
    """Return what an input costs on average, of which such shares leave at each exit."""
    return math.fsum(share * cost for share, cost in zip(shares, costs, strict=True))


def refuse_costs(costs: Sequence[float], subnets: Sequence[str]) -> None:
    """Refuse costs that are none, or that do not rise from sub-network to sub-network.

    Raises:
        ValueError: names the two sub-networks and what they cost.
    """
    if len(costs) != len(subnets) or len(costs) < 2:
        raise ValueError(f"{len(costs)} costs and {len(subnets)} sub-networks; expected one each, of 2 or more")
    for subnet, cost in zip(subnets, costs, strict=True):
        if not math.isfinite(cost) or cost <= 0:
            raise ValueError(f"{subnet} costs {cost:g}; expected a finite number above 0")
    for place in range(len(costs) - 1):
        if costs[place] >= costs[place + 1]:
            raise ValueError(
                f"{subnets[place]} costs {costs[place]:g} and {subnets[place + 1]}, which comes behind it, "
                f"{costs[place + 1]:g}: costs must rise, all that was computed before counted"
            )


def refuse_budgets(budgets: Sequence[float], costs: Sequence[float], first: str) -> None:
    """Refuse budgets that are none, or that cannot be met.

    Raises:
        ValueError: names the budget, and what the first sub-network costs.
    """
    for budget in budgets:
        if not isinstance(budget, Real):
            raise ValueError(f"budget {budget!r} is no number; expected 10^9 multiply-accumulates")
        if not math.isfinite(budget) or budget < costs[0]:
            raise ValueError(f"budget {budget:g} cannot be met: {first} alone costs {costs[0]:g}, for every input")


def find_for_budgets(
    confidences: Tensor, costs: Sequence[float], budgets: Sequence[float], *, first: str = "the first exit"
) -> list[Found]:
    """Find for each budget the q whose average cost is the largest that does not exceed it.

    Two values of q between which no `floor(N * share)` changes give the same thresholds, so there are as many cases
    as there are changes, and one of each is tried.

    Args:
        confidences: of validation images, `[K, N]`.
        costs: of an input that leaves at each exit, all that was computed for it counted, `[K]`.
        budgets: average costs of an input.
        first: what the first sub-network is called.

    Raises:
        ValueError: a budget is no number, or less than what the first exit costs.
    """
    refuse_budgets(budgets, costs, first)
    confidences = confidences.detach().cpu()
    cases = _cases(len(confidences), confidences.shape[1])
    shares = [exit_shares(q, len(costs)) for q in cases]
    nominal = _nominal_costs(torch.tensor(shares, dtype=torch.float64), costs, confidences.shape[1])
    # Sorted once, and not at every try: there are hundreds.
    descending, order = confidences.sort(dim=1, descending=True)
    tried: dict[int, Found] = {}

    def attempt(case: int) -> None:
        if case not in tried:
            thresholds, left = _walk(confidences, descending, order, shares[case])
            tried[case] = Found(cases[case], thresholds, left, average_cost(left, costs))

    for case in range(0, len(cases), math.ceil(len(cases) / _WALKS)):
        attempt(case)
    for budget in budgets:
        below = nominal.where(nominal <= budget * (1 + 1e-9), -math.inf)  # added up in another order, hence the 1e-9
        for case in below.topk(min(_NEAR, len(cases))).indices.tolist():
            attempt(case)
    return [
        max((found for found in tried.values() if found.cost <= budget), key=lambda found: found.cost)
        for budget in budgets
    ]


def _walk(
    confidences: Tensor, descending: Tensor, order: Tensor, shares: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return thresholds, and the shares that leave by them, of confidences that are sorted already."""
    inside = torch.ones_like(confidences[0], dtype=torch.bool)
    count = inputs = len(inside)
    thresholds, left = [], []
    for exit_number, share in enumerate(shares[:-1]):
        wanted, threshold, before = math.floor(inputs * share), math.inf, count
        if 0 < wanted <= count:
            places = inside[order[exit_number]].nonzero().flatten()
            threshold = float(descending[exit_number, places[wanted - 1]])
            inside &= confidences[exit_number] < threshold
            count = int(inside.sum())
        thresholds.append(threshold)
        left.append((before - count) / inputs)
    return (*thresholds, -math.inf), (*left, count / inputs)


def _cases(exits: int, inputs: int) -> list[float]:
    """Return one q for each way in which `floor(N * share)` can come out, in rising order; 0 is the first."""
    wanted = torch.arange(1, inputs + 1, dtype=torch.float64) / inputs
    changes = []
    for exit_number in range(exits - 1):
        # The share of an exit rises with q until its peak and falls from there; that of the first falls from 1.
        peak = _peak(exit_number, exits)
        reached = wanted[wanted < _share(torch.tensor([peak], dtype=torch.float64), exit_number, exits)]
        if exit_number:
            changes.append(_solve(reached, exit_number, exits, -60.0, peak))
        changes.append(_solve(reached, exit_number, exits, 60.0, peak))
    logs = torch.cat(changes).unique()
    middles = torch.cat([logs[:1] - 1, (logs[1:] + logs[:-1]) / 2, logs[-1:] + 1])
    return [0.0, *middles.exp().tolist()]


def _share(log_q: Tensor, exit_number: int, exits: int) -> Tensor:
    """Return the share of exit `exit_number`, counted from 0, at each log q."""
    return torch.softmax(log_q[:, None] * torch.arange(exits, dtype=torch.float64), dim=1)[:, exit_number]


def _peak(exit_number: int, exits: int) -> float:
    """Return the log q at which the share of an exit is the largest: where the mean exit is this one."""
    if exit_number == 0:
        return -60.0
    places, low, high = torch.arange(exits, dtype=torch.float64), -60.0, 60.0
    for _ in range(100):
        middle = (low + high) / 2
        mean = float((torch.softmax(middle * places, dim=0) * places).sum())
        low, high = (middle, high) if mean < exit_number else (low, middle)
    return (low + high) / 2


def _solve(wanted: Tensor, exit_number: int, exits: int, outside: float, peak: float) -> Tensor:
    """Return the log q between a far end and the peak where the share of an exit is as wanted."""
    too_small, enough = torch.full_like(wanted, outside), torch.full_like(wanted, peak)
    for _ in range(60):
        middle = (too_small + enough) / 2
        reaches = _share(middle, exit_number, exits) >= wanted
        enough, too_small = enough.where(~reaches, middle), too_small.where(reaches, middle)
    return (too_small + enough) / 2


def _nominal_costs(shares: Tensor, costs: Sequence[float], inputs: int) -> Tensor:
    """Return the average cost at each share `[Q, K]` if no two inputs were equally sure."""
    counts = (shares * inputs).floor()
    counts[:, -1] = inputs - counts[:, :-1].sum(dim=1)
    return counts @ torch.tensor(costs, dtype=torch.float64) / inputs
