"""The circumstances of a measurement."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from pliant.checkpoint import versions

__all__ = ["describe_environment", "device_name", "resolve_device"]


def describe_environment() -> dict[str, Any]:
    """Return processor, versions and date (UTC), for the `info` of a table."""
    return {
        "cpu": _cpu_name(),
        "platform": platform.platform(terse=True),
        "versions": {"python": platform.python_version(), **versions()},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device by that name.

    Raises:
        ValueError: there is none on this machine.
    """
    try:
        resolved = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} cannot be used here: {reason}") from None
    if resolved.type == "meta":
        raise ValueError("device 'meta' cannot be used here: it computes no values")
    return resolved


def device_name(device: torch.device) -> str:
    """Return the device with what it is called by its maker, as far as PyTorch knows."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        brand = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(brand, capture_output=True, text=True, check=False).stdout.strip()
    return platform.processor() or platform.machine()
