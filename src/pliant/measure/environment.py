"""The circumstances of a measurement."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from pliant.checkpoint import versions

__all__ = ["describe_environment", "device_name", "other_machine", "resolve_device"]


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


def other_machine(info: Mapping[str, Any]) -> str:
    """Compare where a table was measured with where we are.

    Machines are told apart by the names of their processors and accelerators alone.

    Args:
        info: of a table.

    Returns:
        What is different, in words; empty where nothing is, or where the table does not say.
    """
    cpu, here = info.get("cpu"), _cpu_name()
    if cpu and cpu != here:
        return f"on {cpu}; this is {here}"
    accelerator = str(info.get("device", "")).partition(" (")[2].removesuffix(")")
    if accelerator:
        present = {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
        if accelerator not in present:
            return f"on {accelerator}; here is {' and '.join(sorted(present)) or 'none'}"
    return ""


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
