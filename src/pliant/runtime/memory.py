"""`file_memory_mb`: what an exported file takes in its runtime, seen from outside, by a process of its own.

The process is `python -m pliant.runtime.memory`, which gets the arguments of `_grown_mb` as JSON and prints what it
returns.
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pliant.core.errors import first_line
from pliant.runtime.file import load
from pliant.runtime.runtimes import runtime_of

__all__ = ["file_memory_mb", "why_no_memory"]

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_NOW, _MOST = "VmRSS", "VmHWM"


def why_no_memory() -> str:
    """Return why the memory of a process cannot be read here; empty if it can."""
    try:
        _kib(_MOST)
        _forget_peak()
    except (OSError, ValueError) as error:
        return f"the peak of a process is read from {_STATUS} and {_RESET}, as Linux has them ({first_line(error)})"
    return ""


def file_memory_mb(
    path: Path,
    subnet: str,
    *,
    subnets: Sequence[str] | None = None,
    runtime: str | None = None,
    batch_size: int = 1,
    threads: int | None = None,
) -> float:
    """Measure how much memory a process holds more for one sub-network of a file: all that was loaded, and a pass.

    It is a new process, so that nothing else counts, and nothing that another sub-network left. What the runtime's
    library itself takes when it is imported does not count, and neither does what only loading takes.

    Args:
        path: the file.
        subnet: which of its sub-networks runs.
        subnets: those that are loaded, see `pliant.runtime.load`; none = all.
        runtime: what runs it; none = what its ending stands for.
        batch_size: images in the pass, which is the first.
        threads: CPU threads; none = as many as the runtime likes.

    Returns:
        The most it held in the pass, 10^6 bytes.

    Raises:
        ValueError: the process failed; with its last line.
    """
    loading = {"runtime": runtime, "subnets": subnets, "threads": threads}
    how = {"path": str(path), "subnet": subnet, "batch_size": batch_size, "loading": loading}
    command = [sys.executable, "-m", __name__, json.dumps(how)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ValueError(f"{path}: its memory was not measured: {said[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _grown_mb(path: str, subnet: str, batch_size: int, loading: dict[str, Any]) -> float:
    runtime_of(Path(path), loading["runtime"]).module()  # so that its library is here before
    _give_back_freed()
    before = _kib(_NOW)
    file = load(path, **loading)
    inputs = file.example(batch_size)
    _give_back_freed()
    _forget_peak()
    file(inputs, subnet)
    return (_kib(_MOST) - before) * 1024 / 1e6


def _give_back_freed() -> None:
    """Let the allocator hand freed memory to the system: where a file was read and taken apart it is much."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc; others do it by themselves
    if trim is not None:
        trim(0)


def _kib(name: str) -> int:
    found = re.search(rf"^{name}:\s*(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"no {name} there")
    return int(found[1])


def _forget_peak() -> None:
    _RESET.write_text("5")


if __name__ == "__main__":
    arguments: dict[str, Any] = json.loads(sys.argv[1])
    print(json.dumps(_grown_mb(**arguments)))
