"""`Timing`: how passes are timed, of networks and of exported files alike, and what their time and energy come to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pliant.measure.energy import EnergyError, Meter, interleaved_mj, usual_meter
from pliant.measure.latency import interleaved_ms, using_threads
from pliant.policy.percentiles import rounds_needed, summarise_ms

__all__ = ["Calls", "Progress", "Timing", "at_least_one"]

Progress = Callable[[str, int, int], object]
"""Called with what is being measured, how much of it is done, and of how much."""

Calls = Mapping[str, Callable[[], object]]
"""By name, what to time; called without arguments."""

_ROUNDS = 100
"""Enough for an upper bound of the 95th percentile."""
_FEWEST_ROUNDS = rounds_needed(50)
"""However little time there is: enough for an interval of the median."""
_ENERGY_SECONDS = 2.0
"""The shortest for which each sub-network runs; counters that move ten times a second are then off by a few percent."""
_BLOCKS = 4


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How passes are timed.

    Attributes:
        threads: of the CPU; none = as many as PyTorch uses now.
        rounds: times each pass is timed; none = 100, or as many as fit into the budget.
        budget_seconds: time all passes for so long together, in 6 rounds at least; and measure energy for as long
            again. None = there is no hurry.
        warmup: rounds before that, not recorded.

    Raises:
        ValueError: numbers that make no sense, or rounds and a budget.
    """

    threads: int | None
    rounds: int | None
    budget_seconds: float | None
    warmup: int

    def __post_init__(self) -> None:
        at_least_one(threads=self.threads, rounds=self.rounds)
        if self.budget_seconds is None:
            return
        if not math.isfinite(self.budget_seconds) or self.budget_seconds <= 0:
            raise ValueError(f"budget_seconds={self.budget_seconds}: allowed is a number of seconds above 0")
        if self.rounds is not None:
            raise ValueError(f"rounds={self.rounds} and budget_seconds={self.budget_seconds:g}: give one of them")

    def latencies(
        self, calls: Calls, on_progress: Progress, device: torch.device | str = "cpu"
    ) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
        """Time passes against each other.

        Returns:
            For each name what `summarise_ms` makes of its times; and the circumstances.
        """
        budget, rounds = self.budget_seconds, self.rounds
        rounds = rounds or (_ROUNDS if budget is None else _FEWEST_ROUNDS)
        started, done, total = time.perf_counter(), 0, self.warmup + rounds

        def on_round(count: int) -> None:
            nonlocal done
            done = count
            fitting = int(done * (budget or 0) / (time.perf_counter() - started))
            on_progress("latency", done, max(done, total, fitting))

        with using_threads(self.threads) as threads, torch.inference_mode():
            times = interleaved_ms(
                calls, rounds=rounds, seconds=budget or 0, warmup=self.warmup, device=device, on_round=on_round
            )
        info = {"threads": threads, "rounds": done - self.warmup}
        summaries = {name: summarise_ms(each) for name, each in times.items()}
        return summaries, info if budget is None else info | {"budget_seconds": budget}

    def energies(
        self, calls: Calls, meter: Meter | None, on_progress: Progress, device: torch.device | str = "cpu"
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Measure the energy of passes against each other.

        Returns:
            For each name the energy of a pass, mJ; empty where it cannot be read. And what it was read from, or why it
            could not be.
        """
        try:
            meter = meter or usual_meter(torch.device(device))
            with using_threads(self.threads), torch.inference_mode():
                used_mj = interleaved_mj(
                    calls,
                    meter,
                    seconds=max(_ENERGY_SECONDS, (self.budget_seconds or 0) / len(calls)),
                    blocks=_BLOCKS,
                    device=device,
                    on_block=lambda done: on_progress("energy", done, _BLOCKS),
                )
        except EnergyError as error:
            return {}, {"no_energy": str(error)}
        return used_mj, {"energy_of": getattr(meter, "__name__", type(meter).__name__)}


def at_least_one(**options: int | None) -> None:
    """Refuse numbers below 1.

    Raises:
        ValueError: names the option and what is allowed.
    """
    for name, value in options.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: allowed are whole numbers from 1 on")
