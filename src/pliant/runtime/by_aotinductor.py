"""AOTInductor: `.pt2` packages, compiled for one kind of machine."""

from __future__ import annotations

from pathlib import Path

import torch

from pliant.runtime.archive import read_archive
from pliant.runtime.by_pytorch import TorchSession

__all__ = ["open_file"]


def open_file(path: Path, threads: int | None) -> TorchSession:
    """Load a file; `threads` are those of the whole process."""
    if threads is not None:
        torch.set_num_threads(threads)
    package = torch._inductor.aoti_load_package(str(path))
    return TorchSession(package, read_archive(path), f"AOTInductor of PyTorch {torch.__version__}")
