from types import SimpleNamespace

import pytest

import pliant
from pliant.policy.budget import BudgetError

ROWS = [
    {"subnet": "TT", "energy_mj": 10.0, "latency_ms": 1.0, "acc1": 90.0},
    {"subnet": "TF", "energy_mj": 20.0, "latency_ms": 2.0, "acc1": 92.0},
    {"subnet": "FF", "energy_mj": 40.0, "latency_ms": 4.0, "acc1": 95.0},
]
TABLE = SimpleNamespace(rows=ROWS)


def walk(governor: pliant.Governor, budgets: list[float]) -> list[str]:
    return [governor.step(energy_mj=budget)["subnet"] for budget in budgets]


def test_it_starts_with_what_pick_gives():
    table = pliant.Table(ROWS)
    assert pliant.Governor(table).step(energy_mj=40) == table.pick(energy_mj=40)


def test_it_goes_down_at_once_and_up_after_three_steps_with_room():
    assert walk(pliant.Governor(TABLE), [50, 39, 50, 50, 50]) == ["FF", "TF", "TF", "TF", "FF"]
    assert walk(pliant.Governor(TABLE), [12, 22, 22, 22]) == ["TT", "TT", "TT", "TF"]
    assert set(walk(pliant.Governor(TABLE), [12, *[21] * 9])) == {"TT"}  # 20 is less than 5 % below 21


def test_a_budget_that_flickers_moves_nothing():
    assert set(walk(pliant.Governor(TABLE), [30, *[39, 50] * 10, 50, 41, 50, 41])) == {"TF"}


def test_it_goes_up_to_what_fitted_in_every_step():
    """Two of the three budgets had room for FF; TF has had it in all."""
    assert walk(pliant.Governor(TABLE), [12, 30, 60, 60]) == ["TT", "TT", "TT", "TF"]
    assert walk(pliant.Governor(TABLE), [12, 30, 60, 60, 60]) == ["TT", "TT", "TT", "TF", "FF"]


def test_without_margin_and_steps_it_is_pick():
    table, budgets = pliant.Table(ROWS), [40, 20, 39, 10, 40, 20]
    governor = pliant.Governor(table, margin=0, steps=1)
    assert walk(governor, budgets) == [table.pick(energy_mj=budget)["subnet"] for budget in budgets]


def test_all_budgets_must_have_room():
    governor = pliant.Governor(TABLE, steps=1)
    assert governor.step(energy_mj=12, latency_ms=9)["subnet"] == "TT"
    assert governor.step(energy_mj=60, latency_ms=4.1)["subnet"] == "TF"
    assert governor.step(energy_mj=60, latency_ms=4.3)["subnet"] == "FF"


def test_a_required_accuracy_has_no_margin():
    governor = pliant.Governor(TABLE, steps=2)
    assert [governor.step(acc1=limit)["subnet"] for limit in (90, 95, 92, 92)] == ["TT", "FF", "FF", "TF"]


def test_a_budget_that_nothing_meets_is_an_error_and_the_sub_network_stays():
    governor = pliant.Governor(TABLE)
    governor.step(energy_mj=30)
    with pytest.raises(BudgetError, match="energy_mj=5 cannot be met: the most frugal sub-network is TT at 10 mJ"):
        governor.step(energy_mj=5)
    assert governor.current is not None and governor.current["subnet"] == "TF"
    assert not governor.met


def test_or_the_nearest_runs_and_it_says_so():
    governor = pliant.Governor(TABLE, strict=False)
    assert walk(governor, [30, 5]) == ["TF", "TT"]
    assert not governor.met
    assert walk(governor, [30, 30, 30]) == ["TT", "TT", "TF"]
    assert governor.met


@pytest.mark.parametrize("options", [{"margin": -0.1}, {"margin": 1}, {"margin": float("nan")}, {"steps": 0}])
def test_options_that_make_no_sense(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name}={value}: allowed"):
        pliant.Governor(TABLE, **options)


def test_a_budget_that_makes_no_sense_is_refused():
    with pytest.raises(BudgetError, match="no budget given"):
        pliant.Governor(TABLE).step()
    with pytest.raises(BudgetError, match="energy is no budget; allowed are latency_ms"):
        pliant.Governor(TABLE).step(energy=3)
