"""Latency, measured so that what drifts (clock, temperature, neighbours) falls on everything alike."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

__all__ = ["interleaved_ms", "time_ms", "using_threads"]


def interleaved_ms(
    callables: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 30,
    seconds: float = 0,
    warmup: int = 3,
    device: torch.device | str = "cpu",
    seed: int = 0,
    on_round: Callable[[int], object] = lambda done: None,
) -> dict[str, list[float]]:
    """Time several callables against each other.

    Every round calls each one once, in a new random order, so that a machine that slows down, or a
    neighbour that comes and goes, does not favour one of them. The first rounds are not recorded. The
    garbage collector is off meanwhile; whether gradients are is left to the caller.

    Args:
        callables: by name, what to time; called without arguments.
        rounds: times recorded for each; with `seconds` the fewest.
        seconds: more rounds follow, as long as another one fits into this time, the warm-up included.
        warmup: rounds before that.
        device: where the work happens; a CUDA device is waited for before and after each call.
        seed: of the order.
        on_round: called after each round with how many are done, the warm-up included.

    Returns:
        For each name its times in milliseconds, one a round, in order.

    Raises:
        ValueError: no round, or a negative warm-up.
    """
    if rounds < 1 or warmup < 0:
        raise ValueError(f"rounds={rounds}, warmup={warmup}: needed are rounds >= 1 and warmup >= 0")
    times: dict[str, list[float]] = {name: [] for name in callables}
    order, device = list(callables), torch.device(device)
    shuffle = random.Random(seed).shuffle
    started, done = time.perf_counter(), 0

    def another_fits() -> bool:
        return (time.perf_counter() - started) * (done + 1) / done <= seconds

    with _garbage_kept():
        while done < warmup + rounds or another_fits():
            shuffle(order)
            for name in order:
                elapsed_ms = time_ms(callables[name], device)
                if done >= warmup:
                    times[name].append(elapsed_ms)
            done += 1
            on_round(done)
    return times


@contextmanager
def using_threads(threads: int | None) -> Iterator[int]:
    """Let PyTorch use that many CPU threads (none: as many as now) and put the number back after."""
    before = torch.get_num_threads()
    if threads is not None:
        if threads < 1:
            raise ValueError(f"threads={threads}: allowed are whole numbers from 1 on")
        torch.set_num_threads(threads)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def time_ms(call: Callable[[], object], device: torch.device) -> float:
    """Return how long a call takes, ms; a CUDA device is waited for before and after."""
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if on_cuda:
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) * 1e3


@contextmanager
def _garbage_kept() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
