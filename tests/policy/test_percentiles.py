import random

import pytest

from pliant.policy.percentiles import PERCENTILES, bound_key, percentile_key, rounds_needed, summarise_ms


def test_percentiles_are_interpolated():
    summary = summarise_ms(list(range(101)))
    assert [summary[percentile_key(percentile)] for percentile in PERCENTILES] == [50, 75, 90, 95, 99]
    assert summarise_ms([3.0]) == {percentile_key(percentile): 3.0 for percentile in PERCENTILES}


def test_the_interval_of_the_median_is_that_of_published_tables():
    """Of 25 values the 8th and the 18th, of 100 the 40th and the 61st (Hahn and Meeker, table A.15a)."""
    for count, low, high in ((25, 8, 18), (100, 40, 61)):
        times = [float(place) for place in range(1, count + 1)]
        random.Random(0).shuffle(times)
        summary = summarise_ms(times)
        assert (summary["latency_ms_low"], summary["latency_ms_high"]) == (low, high)


@pytest.mark.parametrize("percentile", PERCENTILES)
def test_a_bound_is_absent_where_there_are_too_few_times(percentile):
    needed = rounds_needed(percentile)
    times = [float(place) for place in range(needed)]
    assert summarise_ms(times)[bound_key(percentile)] == times[-1]
    assert bound_key(percentile) not in summarise_ms(times[:-1])
    assert ("latency_ms_low" in summarise_ms(times)) == (needed >= 6)


@pytest.mark.parametrize(("percentile", "value"), [(50, 0.6931), (90, 2.3026), (95, 2.9957)])
def test_bounds_hold_as_often_as_they_say(percentile, value):
    """Of exponentially distributed times, which are as lopsided as latencies are."""
    generator = random.Random(0)
    summaries = [summarise_ms([generator.expovariate(1) for _ in range(120)]) for _ in range(400)]
    assert sum(summary[bound_key(percentile)] >= value for summary in summaries) >= 0.96 * 400
    assert sum(summary[percentile_key(percentile)] >= value for summary in summaries) < 0.6 * 400


def test_thousands_of_times_have_bounds_close_by():
    times = [place / 5000 for place in range(5000)]
    summary = summarise_ms(times)
    assert 0.5 < summary["latency_ms_high"] < 0.52 and 0.48 < summary["latency_ms_low"] < 0.5
    assert 0.99 < summary["latency_ms_p99_high"] < 0.994
