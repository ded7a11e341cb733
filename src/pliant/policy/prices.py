"""A price for multiply-accumulates, with which a gate spends what was asked, on average.

A gate gives every route of an input a score and takes the best. At a price p, the best is that of `score - p * cost`:
0 leaves the gate as it was trained, and the higher the price, the less is spent. Validation images say at which price
a budget is spent.

Letters of shapes: N inputs, R routes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from pliant.policy.thresholds import average_cost, refuse_budgets, refuse_costs

__all__ = ["Priced", "find_prices"]


@dataclass(frozen=True)
class Priced:
    """What was found for one budget.

    Attributes:
        price: of a unit of cost, in the unit of the scores.
        offsets: of the routes: what is added to their scores.
        shares: of the validation images, which take each route.
        cost: average of one validation image.
    """

    price: float
    offsets: tuple[float, ...]
    shares: tuple[float, ...]
    cost: float


def find_prices(
    scores: Tensor, costs: Sequence[float], budgets: Sequence[float], *, routes: Sequence[str]
) -> list[Priced]:
    """Find for each budget the lowest price at which inputs do not cost more, on average.

    An input changes its route only at prices at which two of its routes are worth the same. Between two such prices
    nothing changes, so that one of each interval is enough, and fewer are tried, since the cost falls with the price.

    Args:
        scores: of validation images, `[N, R]`.
        costs: of an input that takes each route; rising.
        budgets: average costs of an input, in the same unit.
        routes: what they are called.

    Raises:
        ValueError: no validation images, scores that are not finite or not of so many routes, costs that do not rise,
            or a budget that is no number or less than what the narrowest route costs.
    """
    refuse_costs(costs, routes)
    refuse_budgets(budgets, costs, routes[0])
    if scores.dim() != 2 or scores.shape[1] != len(costs) or not len(scores):
        raise ValueError(f"scores {list(scores.shape)}; expected [images, {len(costs)}], of one image or more")
    if not scores.isfinite().all():
        raise ValueError("the gate gives scores that are not finite (NaN or infinity)")
    scores, each = scores.detach().cpu().double(), torch.tensor(costs, dtype=torch.float64)
    equal = [(scores[:, j] - scores[:, i]) / (each[j] - each[i]) for i, j in combinations(range(len(costs)), 2)]
    changes = torch.cat(equal).unique()
    prices = torch.cat([changes[:1] - 1, (changes[1:] + changes[:-1]) / 2, changes[-1:] + 1]).tolist()
    return [_cheapest(scores, each, prices, budget) for budget in budgets]


def _cheapest(scores: Tensor, costs: Tensor, prices: Sequence[float], budget: float) -> Priced:
    """Return what the lowest of the rising prices gives at which the budget is kept, by bisection."""
    low, high = 0, len(prices) - 1
    while low < high:
        middle = (low + high) // 2
        if _at(scores, costs, prices[middle]).cost <= budget:
            high = middle
        else:
            low = middle + 1
    return _at(scores, costs, prices[low])


def _at(scores: Tensor, costs: Tensor, price: float) -> Priced:
    offsets = -price * (costs - costs[0])
    counts = (scores + offsets).argmax(1).bincount(minlength=len(costs))
    shares = tuple((counts / len(scores)).tolist())
    return Priced(price, tuple(offsets.tolist()), shares, average_cost(shares, costs.tolist()))
