"""Energy of forward passes, read from counters of the machine or from a meter of one's own; never estimated."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

import torch

from pliant.measure.latency import time_ms

__all__ = ["EnergyError", "Meter", "NvmlMeter", "RaplMeter", "interleaved_mj", "read_joules", "usual_meter"]

Meter = Callable[[], float]
"""Called without arguments, returns the energy that was used since some start which stays the same, in joules.

Everything that the meter sees counts: that of a processor also what other programs do on it.
"""

POWERCAP = Path("/sys/class/powercap")


class EnergyError(ValueError):
    """Energy that cannot be measured here; one line that says why."""


class RaplMeter:
    """Reads the counters of Intel's and AMD's processors, through Linux: all packages, and the memory that they count.

    The counters of parts of a package are contained in it, and are not read.

    Args:
        powercap: the folder of the kernel's power capping framework, as `Documentation/power/powercap` describes it.

    Raises:
        EnergyError: there are none, or they must not be read.
    """

    def __init__(self, powercap: Path = POWERCAP) -> None:
        zones = {zone: _text(zone / "name") for zone in sorted(powercap.glob("intel-rapl:*"))}
        self._zones = [zone for zone, name in zones.items() if name.startswith("package") or name == "dram"]
        if not any(zones[zone].startswith("package") for zone in self._zones):
            raise EnergyError(f"there is no RAPL counter of a processor in {powercap}")
        self._ranges = [int(_text(zone / "max_energy_range_uj")) for zone in self._zones]
        self._last_uj = self._counters()
        self._total_uj = 0

    def __call__(self) -> float:
        """Return joules since this meter was made; must be called before a counter has gone round twice."""
        now_uj = self._counters()
        for now, last, largest in zip(now_uj, self._last_uj, self._ranges, strict=True):
            self._total_uj += now - last if now >= last else now - last + largest
        self._last_uj = now_uj
        return self._total_uj / 1e6

    def _counters(self) -> list[int]:
        return [int(_text(zone / "energy_uj")) for zone in self._zones]


class NvmlMeter:
    """Reads the counter of an NVIDIA GPU, which its driver moves on about ten times a second.

    Args:
        uuid: of the GPU, without the `GPU-` before it.

    Raises:
        EnergyError: pynvml is not installed, or this GPU has no counter.
    """

    def __init__(self, uuid: str) -> None:
        try:
            self._nvml = import_module("pynvml")
        except ImportError:
            raise EnergyError("pynvml, which reads the counter of a GPU, is not installed (nvidia-ml-py)") from None
        try:
            self._nvml.nvmlInit()
            self._gpu = self._nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
            self()
        except self._nvml.NVMLError as error:
            raise EnergyError(f"the energy counter of this GPU cannot be read ({error})") from None

    def __call__(self) -> float:
        """Return joules since the driver was loaded."""
        return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu) / 1e3


def usual_meter(device: torch.device) -> Meter:
    """Return what reads the energy of a device: NVML for a GPU of NVIDIA, RAPL for processors.

    Raises:
        EnergyError: there is none.
    """
    if device.type == "cuda":
        return NvmlMeter(str(torch.cuda.get_device_properties(device).uuid))
    if device.type == "cpu":
        return RaplMeter(POWERCAP)
    raise EnergyError(f"no energy counter is known of the device {device}")


def interleaved_mj(
    callables: Mapping[str, Callable[[], object]],
    meter: Meter,
    *,
    seconds: float = 2.0,
    blocks: int = 4,
    device: torch.device | str = "cpu",
    seed: int = 0,
    on_block: Callable[[int], object] = lambda done: None,
) -> dict[str, float]:
    """Measure the energy of several callables against each other.

    Counters move on in steps, of 1 ms in processors and up to 100 ms in GPUs, so that each callable runs again and
    again for a while between two readings. They take turns in a random order, as in `interleaved_ms`. What the machine
    uses when it is idle is not subtracted.

    Args:
        callables: by name, what to measure; called without arguments.
        meter: see `Meter`.
        seconds: for how long each runs, in all its blocks together.
        blocks: how many blocks of calls each has.
        device: where the work happens.
        seed: of the order.
        on_block: called after each round of blocks with how many are done.

    Returns:
        For each name the energy of one call in 10^-3 joules.

    Raises:
        EnergyError: the meter returns no number, falls, or stands still.
    """
    joules, calls = dict.fromkeys(callables, 0.0), dict.fromkeys(callables, 0)
    order, device = list(callables), torch.device(device)
    shuffle = random.Random(seed).shuffle
    for done in range(blocks):
        shuffle(order)
        for name in order:
            time_ms(callables[name], device)  # what the one before left in the caches is not this one's
            before, left_ms = read_joules(meter), seconds / blocks * 1e3
            while left_ms > 0:
                left_ms -= time_ms(callables[name], device)
                calls[name] += 1
            used = read_joules(meter) - before
            if used < 0:
                raise EnergyError(f"the meter fell by {-used:g} J; expected the energy since a start that stays")
            joules[name] += used
        on_block(done + 1)
    for name, used in joules.items():
        if used == 0:
            raise EnergyError(f"the meter stood still while {name} ran for {seconds:.3g} s")
    return {name: 1e3 * joules[name] / calls[name] for name in callables}


def read_joules(meter: Meter) -> float:
    """Read a meter.

    Raises:
        EnergyError: what it returns is no number.
    """
    value = meter()
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise EnergyError(f"the meter returned {value!r}; expected joules since some start, a number")
    return float(value)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except PermissionError:
        raise EnergyError(f"RAPL is here, but {path} may not be read by this user") from None
    except OSError as error:
        raise EnergyError(f"RAPL cannot be read: {path} ({error.strerror})") from None
