import math

import numpy as np
import pytest

from pliant.policy.budget import BudgetError, choose

ROWS = [
    {"subnet": "TT", "gmacs": 1.0, "params_m": 10.0, "acc1": 90.0, "latency_ms": 3.2, "latency_ms_p95": 4.0},
    {"subnet": "TF", "gmacs": 2.0, "params_m": 12.0, "acc1": 93.0, "latency_ms": 5.0, "latency_ms_p95": 9.0},
    {"subnet": "FT", "gmacs": 3.0, "params_m": 11.0, "acc1": 92.0, "latency_ms": 4.5, "latency_ms_p95": 6.0},
    {"subnet": "FF", "gmacs": 4.0, "params_m": 13.0, "acc1": 95.0, "latency_ms": 7.0, "latency_ms_p95": 8.0},
]


def without(key: str) -> list[dict]:
    return [{name: value for name, value in row.items() if name != key} for row in ROWS]


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ({"latency_ms": 5.0}, "TF"),
        ({"latency_ms": 4.99}, "FT"),
        ({"latency_ms": 1000}, "FF"),
        ({"latency_ms_p95": 8.0}, "FF"),
        ({"gmacs": 3.5}, "TF"),
        ({"params_m": 11.5}, "FT"),
        ({"gmacs": 3.5, "params_m": 11.5}, "FT"),
        ({"acc1": 91}, "FT"),
        ({"acc1": 90}, "TT"),
        ({"acc1": 91, "gmacs": 2.5}, "TF"),
        ({"acc1": 91, "latency_ms": 6}, "TF"),
        ({"gmacs": np.float32(3.5)}, "TF"),
    ],
)
def test_picks_the_best_that_meets_every_budget(budget, expected):
    assert choose(ROWS, **budget)["subnet"] == expected


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ({"energy_mj": 35}, "TF"),
        ({"energy_mj": 35, "latency_ms": 4.5}, "TT"),
        ({"slo_ms": 9.6}, "TF"),
        ({"slo_ms": 9.5}, "FT"),
        ({"slo_ms": 9.5, "percentile": 95}, "FT"),
        ({"slo_ms": 7.5, "percentile": 50}, "FF"),
        ({"slo_ms": 7.4, "percentile": 50}, "TF"),
        ({"slo_ms": 7.4, "percentile": 50, "energy_mj": 25}, "TT"),
    ],
)
def test_energy_and_a_percentile_that_holds(budget, expected):
    """By the upper bounds of the percentiles, not by the percentiles."""
    energies, highs, p95_highs = (20.0, 30.0, 40.0, 50.0), (3.3, 5.1, 4.6, 7.5), (4.4, 9.6, 6.6, 10.0)
    rows = [
        row | {"energy_mj": energy, "latency_ms_high": high, "latency_ms_p95_high": p95_high}
        for row, energy, high, p95_high in zip(ROWS, energies, highs, p95_highs, strict=True)
    ]
    assert choose(rows, **budget)["subnet"] == expected
    with pytest.raises(
        BudgetError, match="slo_ms=3 at percentile 95 cannot be met: the fastest sub-network is TT at 4"
    ):
        choose(rows, slo_ms=3)


def test_a_percentile_that_cannot_be_promised_says_what_it_takes():
    with pytest.raises(BudgetError, match="percentile 95 has no upper bound in this table: that takes 72 rounds"):
        choose(ROWS, slo_ms=9)
    with pytest.raises(BudgetError, match="percentile=80: allowed are 50, 75, 90, 95, 99"):
        choose(ROWS, slo_ms=9, percentile=80)
    with pytest.raises(BudgetError, match="percentile=90 is of slo_ms, which is not given"):
        choose(ROWS, gmacs=9, percentile=90)


def test_an_unknown_budget_says_what_is_known():
    with pytest.raises(BudgetError, match="latency is no budget; allowed are latency_ms, "):
        choose(ROWS, latency=3)


def test_without_accuracy_the_largest_is_the_best():
    assert choose(without("acc1"), latency_ms=5.0)["subnet"] == "FT"


def test_without_latency_the_cheapest_has_the_fewest_macs():
    assert choose(without("latency_ms"), acc1=91)["subnet"] == "TF"


def test_of_equals_the_cheaper_wins():
    rows = [row | {"acc1": 90.0} for row in ROWS]
    assert choose(rows, gmacs=10)["subnet"] == "TT"
    assert choose(rows[::-1], gmacs=10)["subnet"] == "TT"
    tied = [{"subnet": "A", "gmacs": 2.0, "acc1": 90.0}, {"subnet": "B", "gmacs": 1.0, "acc1": 90.0}]
    assert choose(tied, acc1=80)["subnet"] == "B"


def test_of_duplicates_the_first_wins():
    rows = [{"subnet": "A", "gmacs": 1.0}, {"subnet": "B", "gmacs": 1.0}]
    assert choose(rows, gmacs=1)["subnet"] == "A"


def test_an_accuracy_that_is_no_number_counts_as_not_measured():
    rows = [ROWS[0], ROWS[3] | {"acc1": math.nan}]
    assert choose(rows, latency_ms=100)["subnet"] == "TT"
    assert choose(rows, acc1=50)["subnet"] == "TT"
    with pytest.raises(BudgetError, match="acc1 was not measured"):
        choose([ROWS[3] | {"acc1": math.nan}], acc1=50)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"latency_ms": 1}, "latency_ms=1 cannot be met: the fastest sub-network is TT at 3.2 ms"),
        ({"gmacs": 0.5}, "gmacs=0.5 cannot be met: the smallest sub-network is TT at 1 GMACs"),
        ({"acc1": 99}, "acc1=99 cannot be met: the most accurate sub-network is FF at 95 %"),
        (
            {"acc1": 94, "latency_ms": 6.5},
            "latency_ms=6.5 and acc1=94 cannot be met together: the nearest sub-network is TF "
            "with latency_ms=5, acc1=93",
        ),
    ],
)
def test_an_impossible_budget_names_the_nearest_possible(budget, message):
    with pytest.raises(BudgetError) as caught:
        choose(ROWS, **budget)
    assert str(caught.value) == message


def test_the_nearest_of_one_row_is_that_row():
    with pytest.raises(BudgetError, match=r"the fastest sub-network is TT at 3\.2 ms"):
        choose(ROWS[:1], latency_ms=2)


@pytest.mark.parametrize("limit", [0, -1, math.nan, math.inf, -math.inf, True, "3"])
def test_a_budget_that_is_no_positive_number_is_refused(limit):
    with pytest.raises(BudgetError, match=r"gmacs=.* is no budget; allowed is a number above 0"):
        choose(ROWS, gmacs=limit)


def test_an_accuracy_given_as_a_fraction_is_refused():
    with pytest.raises(BudgetError, match=r"acc1=0.97 is no budget; allowed is a percentage"):
        choose(ROWS, acc1=0.97)


def test_a_budget_for_what_was_not_measured_says_what_was():
    with pytest.raises(BudgetError, match=r"peak_memory_mb was not measured; this table has latency_ms, "):
        choose(ROWS, peak_memory_mb=3)


def test_no_budget_and_no_rows_are_refused():
    with pytest.raises(BudgetError, match="no budget given; give at least one of latency_ms"):
        choose(ROWS)
    with pytest.raises(BudgetError, match="no sub-network to choose from"):
        choose([], gmacs=1)


def test_errors_are_one_line():
    for budget in ({}, {"gmacs": -1}, {"gmacs": 0.1}, {"gmacs": 1.5, "acc1": 94}):
        with pytest.raises(ValueError) as caught:
            choose(ROWS, **budget)
        assert "\n" not in str(caught.value)
