"""Thresholds for a budget, against the published procedure written out input by input."""

from __future__ import annotations

import math

import pytest
import torch

from pliant.policy.fit import budgets_between
from pliant.policy.thresholds import exit_shares, find_for_budgets, find_thresholds, refuse_costs


def confidences(exits: int, inputs: int, seed: int, *, levels: int = 0) -> torch.Tensor:
    """Random ones; with `levels` so few different values that many inputs are equally sure."""
    values = torch.rand(exits, inputs, generator=torch.Generator().manual_seed(seed))
    return (values * levels).ceil() / levels if levels else values


def walked(rows: list[list[float]], shares: list[float]) -> list[float]:
    """The published procedure, as one would do it by hand."""
    inputs, out = len(rows[0]), set()
    thresholds = []
    for row, share in zip(rows[:-1], shares, strict=False):
        threshold, count = math.inf, 0
        for one in sorted(range(inputs), key=lambda index: -row[index]):
            if one not in out:
                count += 1
                if count == math.floor(inputs * share):
                    threshold = row[one]
                    break
        thresholds.append(threshold)
        out |= {one for one in range(inputs) if row[one] >= threshold}
    return [*thresholds, -math.inf]


def left_by_hand(rows: list[list[float]], thresholds: list[float]) -> list[float]:
    inputs, counts = len(rows[0]), [0] * len(rows)
    for one in range(inputs):
        counts[next(k for k, threshold in enumerate(thresholds) if rows[k][one] >= threshold)] += 1
    return [count / inputs for count in counts]


def test_shares_are_proportional_to_powers_of_q():
    shares = exit_shares(0.7, 5)
    powers = [0.7**k for k in range(1, 6)]
    assert shares == pytest.approx([power / sum(powers) for power in powers])
    assert exit_shares(0.0, 3) == [1, 0, 0]
    assert exit_shares(1e200, 7) == pytest.approx([0] * 6 + [1])
    with pytest.raises(ValueError, match="expected a finite q"):
        exit_shares(-1.0, 3)


@pytest.mark.parametrize("levels", [0, 4, 1])
@pytest.mark.parametrize("exits", [2, 4, 7])
def test_thresholds_equal_the_procedure_by_hand(exits, levels):
    for seed in range(20):
        rows = confidences(exits, 23, seed, levels=levels)
        for step in range(1, 40, 3):
            shares = exit_shares(step / 20, exits)
            thresholds = find_thresholds(rows, shares)
            assert list(thresholds) == walked(rows.tolist(), shares)


def test_a_share_of_less_than_one_input_lets_nobody_leave():
    assert find_thresholds(confidences(3, 5, 0), [0.19, 0.4, 0.41])[0] == math.inf
    assert find_thresholds(confidences(3, 5, 0), [0.2, 0.4, 0.4])[0] == confidences(3, 5, 0)[0].max()


def test_inputs_that_are_equally_sure_leave_together():
    rows = torch.tensor([[0.9, 0.9, 0.9, 0.1], [0.5, 0.5, 0.5, 0.5], [0.0] * 4])
    assert find_thresholds(rows, [0.25, 0.25, 0.5]) == (pytest.approx(0.9), 0.5, -math.inf)
    assert left_by_hand(rows.tolist(), list(find_thresholds(rows, [0.25, 0.25, 0.5]))) == [0.75, 0.25, 0]


@pytest.mark.parametrize(("levels", "inputs"), [(0, 40), (3, 40), (0, 17)])
def test_the_cost_is_the_largest_that_a_budget_allows(levels, inputs):
    costs = [1.0, 2.5, 3.0, 7.0]
    rows = confidences(4, inputs, 5, levels=levels)

    def cost(log_q: float) -> float:
        shares = exit_shares(math.exp(log_q), 4)
        left = left_by_hand(rows.tolist(), list(find_thresholds(rows, shares)))
        return math.fsum(share * cost for share, cost in zip(left, costs, strict=True))

    reachable = {cost(step / 200) for step in range(-1500, 1500)}
    budgets = [1.0, 1.3, 2.0, 3.3, 4.5, 6.9, 7.0, 100.0]
    for budget, found in zip(budgets, find_for_budgets(rows, costs, budgets), strict=True):
        best = max((value for value in reachable if value <= budget), default=1.0)
        assert best <= found.cost <= budget
        assert found.thresholds == find_thresholds(rows, exit_shares(found.q, 4))
        assert found.shares == tuple(left_by_hand(rows.tolist(), list(found.thresholds)))
    assert find_for_budgets(rows, costs, [1.0])[0].shares == (1, 0, 0, 0)


def test_a_budget_of_many_images_is_spent_to_the_last_of_them():
    costs, rows = [1.0, 2.0, 4.0, 8.0, 9.0], confidences(5, 3000, 1)
    budgets = budgets_between(costs, 6)
    spent = [found.cost for found in find_for_budgets(rows, costs, budgets)]
    assert all(budget - 8 / 3000 <= cost <= budget for cost, budget in zip(spent, budgets, strict=True))


def test_budgets_run_from_the_first_exit_to_the_last():
    assert budgets_between([1.0, 2.0, 5.0], 3) == [1, 3, 5]
    assert budgets_between([1.0, 2.0, 5.0], 1) == [3]
    with pytest.raises(ValueError, match="budgets=0: expected at least 1"):
        budgets_between([1.0, 2.0], 0)


def test_a_budget_below_the_first_exit_is_refused_with_its_cost():
    with pytest.raises(ValueError, match=r"budget 0.5 cannot be met: exit=1 alone costs 0.75"):
        find_for_budgets(confidences(2, 5, 0), [0.75, 2.0], [0.5], first="exit=1")


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ([1.0, 3.0, 3.0], "exit=2 costs 3 and exit=3, which comes behind it, 3: costs must rise"),
        ([2.0, 1.0, 3.0], "exit=1 costs 2 and exit=2, which comes behind it, 1"),
        ([1.0, math.nan, 3.0], "exit=2 costs nan; expected a finite number above 0"),
        ([1.0, 2.0], "2 costs and 3 sub-networks"),
    ],
)
def test_costs_that_do_not_rise_are_refused(costs, message):
    with pytest.raises(ValueError, match=message):
        refuse_costs(costs, ["exit=1", "exit=2", "exit=3"])


def test_shares_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"2 shares and confidences \[3, 5\]"):
        find_thresholds(confidences(3, 5, 0), [0.5, 0.5])


@pytest.mark.parametrize("levels", [0, 4])
def test_what_is_found_for_a_budget_is_what_leaves_by_hand(levels):
    rows = confidences(4, 37, 3, levels=levels)
    for found in find_for_budgets(rows, [1.0, 2.0, 3.0, 4.0], [1.2, 2.0, 3.3]):
        assert list(found.thresholds) == walked(rows.tolist(), exit_shares(found.q, 4))
        assert list(found.shares) == left_by_hand(rows.tolist(), list(found.thresholds))
