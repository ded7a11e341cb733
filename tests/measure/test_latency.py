import gc
import time
from types import SimpleNamespace

import pytest
import torch

from pliant.measure import latency
from pliant.measure.latency import interleaved_ms, using_threads
from pliant.policy.percentiles import summarise_ms


def test_every_round_calls_each_once_in_changing_order():
    calls = []
    times = interleaved_ms({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=20, warmup=5)
    assert {name: len(values) for name, values in times.items()} == {"a": 20, "b": 20, "c": 20}
    rounds = [tuple(calls[start : start + 3]) for start in range(0, len(calls), 3)]
    assert len(rounds) == 25
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 1


def test_times_are_milliseconds_of_the_call():
    times = interleaved_ms({"short": lambda: None, "long": lambda: time.sleep(0.02)}, rounds=3, warmup=0)
    assert min(times["long"]) >= 20
    assert min(times["short"]) < 20


def test_drift_falls_on_all_alike(monkeypatch):
    """A machine that gets slower with every call: the medians of equal work stay equal."""
    clock = SimpleNamespace(now=0.0, calls=0)

    def work():
        clock.calls += 1
        clock.now += clock.calls

    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    times = interleaved_ms({"first": work, "second": work}, rounds=100, warmup=0)
    medians = [summarise_ms(values)["latency_ms"] for values in times.values()]
    assert medians[0] == pytest.approx(medians[1], rel=0.05)


def test_progress_counts_rounds_with_the_warm_up():
    seen = []
    interleaved_ms({"a": lambda: None}, rounds=3, warmup=2, on_round=seen.append)
    assert seen == [1, 2, 3, 4, 5]


def test_the_garbage_collector_is_back_on_after_an_error():
    with pytest.raises(ZeroDivisionError):
        interleaved_ms({"a": lambda: 1 / 0}, rounds=1)
    assert gc.isenabled()


@pytest.mark.parametrize(("rounds", "warmup"), [(0, 1), (1, -1)])
def test_no_rounds_are_refused(rounds, warmup):
    with pytest.raises(ValueError, match="rounds >= 1"):
        interleaved_ms({}, rounds=rounds, warmup=warmup)


@pytest.mark.parametrize(("seconds", "rounds"), [(0, 2), (20, 2), (50, 4), (59.9, 4), (60, 5)])
def test_with_a_time_there_are_as_many_rounds_as_fit(monkeypatch, seconds, rounds):
    clock = SimpleNamespace(now=0.0)

    def work():
        clock.now += 5

    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    times = interleaved_ms({"one": work, "other": work}, rounds=2, warmup=1, seconds=seconds)
    assert {name: len(values) for name, values in times.items()} == {"one": rounds, "other": rounds}


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with using_threads(2) as threads:
        assert threads == torch.get_num_threads() == 2
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), using_threads(2):
        raise KeyError
    assert torch.get_num_threads() == before
    with using_threads(None) as threads:
        assert threads == before


@pytest.mark.parametrize("threads", [0, -2])
def test_no_threads_are_refused(threads):
    with pytest.raises(ValueError, match=f"threads={threads}"), using_threads(threads):
        pass
