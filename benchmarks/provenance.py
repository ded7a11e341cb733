"""Where a figure comes from. Every script here writes its results through `write_result`."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pliant.core.files import write_atomically

ROOT = Path(__file__).parents[1]
LIBRARIES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "lightning",
    "onnxruntime",
    "openvino",
    "executorch",
    "torchao",
    "numpy",
)


def provenance() -> dict[str, Any]:
    """The command, commit, device, versions and date of this process."""
    return {
        "command": shlex.join(["python", str(Path(sys.argv[0]).resolve().relative_to(ROOT)), *sys.argv[1:]]),
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": bool(
            _git("status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks", "recipes")
        ),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cpu": _cpu(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES},
    }


def write_result(path: str | Path, figures: Mapping[str, Any]) -> None:
    """Write figures with their provenance as JSON; a relative path counts from the repository's root."""
    path = ROOT / path
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps({"provenance": provenance(), **figures}, indent=2) + "\n")


def notes_of(documents: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the `note` of a summary: those of what it sums up, each once; nothing where there are none."""
    notes = dict.fromkeys(document["note"] for document in documents if "note" in document)
    return {"note": " ".join(notes)} if notes else {}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
