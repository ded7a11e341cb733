"""A price for multiply-accumulates, found on validation images: what a gate then spends."""

from __future__ import annotations

import pytest
import torch

from pliant.policy.prices import find_prices

ROUTES, COSTS = ("narrow", "half", "wide"), (1.0, 2.0, 4.0)


def scores(count: int = 200) -> torch.Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(0))


def cost_of(offsets: tuple[float, ...]) -> float:
    """What is spent if every image takes the route of its best score."""
    return torch.tensor(COSTS)[(scores() + torch.tensor(offsets)).argmax(1)].mean().item()


@pytest.mark.parametrize("budget", [1.0, 1.3, 2.0, 3.1, 3.9, 4.0])
def test_a_budget_is_kept_and_spent(budget) -> None:
    (found,) = find_prices(scores(), COSTS, [budget], routes=ROUTES)
    assert cost_of(found.offsets) == pytest.approx(found.cost) and found.cost <= budget
    # Two routes are worth the same to one image at a time, which changes its cost by 3 of 200 at most.
    assert found.cost > budget - 3 / 200
    assert sum(found.shares) == pytest.approx(1)
    assert found.cost == pytest.approx(sum(share * cost for share, cost in zip(found.shares, COSTS, strict=True)))


def test_offsets_are_the_price_of_what_a_route_costs_more() -> None:
    found = find_prices(scores(), COSTS, [1.5, 3.0], routes=ROUTES)
    assert found[0].price > found[1].price
    for one in found:
        assert one.offsets == pytest.approx((0, -one.price, -3 * one.price))


def test_a_gate_that_sends_all_one_way_still_says_who_would_gain_most() -> None:
    """As one that was trained where nearly all images are easy: it prefers the narrow route for each, more or less."""
    prefers = torch.stack([torch.linspace(1, 2, 100), torch.zeros(100)], dim=1)
    (found,) = find_prices(prefers, (1.0, 3.0), [1.5], routes=("narrow", "wide"))
    wide = (prefers + torch.tensor(found.offsets)).argmax(1)
    assert wide.tolist() == [1] * 25 + [0] * 75


def test_equal_scores_stay_together() -> None:
    (found,) = find_prices(torch.zeros(10, 2), (1.0, 3.0), [2.0], routes=("narrow", "wide"))
    assert found.shares == (1.0, 0.0) and found.cost == 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"budgets": [0.9]}, "budget 0.9 cannot be met: narrow alone costs 1"),
        ({"budgets": [float("nan")]}, "budget nan cannot be met"),
        ({"costs": (1.0, 1.0, 2.0)}, "narrow costs 1 and half"),
        ({"scores": torch.zeros(0, 3)}, r"scores \[0, 3\]; expected \[images, 3\]"),
        ({"scores": torch.zeros(5, 2)}, r"scores \[5, 2\]; expected \[images, 3\]"),
        ({"scores": torch.full((5, 3), float("nan"))}, "not finite"),
    ],
)
def test_what_cannot_be_priced(change, words) -> None:
    with pytest.raises(ValueError, match=words):
        find_prices(**{"scores": scores(), "costs": COSTS, "budgets": [2.0], "routes": ROUTES} | change)
