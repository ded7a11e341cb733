"""PyTorch: `.pt2` programs of torch.export."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch

from pliant.runtime.archive import read_archive

__all__ = ["TorchSession", "open_file"]


def open_file(path: Path, threads: int | None) -> TorchSession:
    """Load a file; `threads` are those of the whole process."""
    info = read_archive(path)  # first, since torch logs a whole traceback of a file that is damaged
    if threads is not None:
        torch.set_num_threads(threads)
    return TorchSession(torch.export.load(path).module(), info, f"PyTorch {torch.__version__}")


class TorchSession:
    """Something that maps tensors to tensors, given arrays."""

    def __init__(self, call: Callable[..., torch.Tensor], info: Mapping[str, Any], version: str) -> None:
        self.info = info
        self.version = version
        self._call = call

    @torch.inference_mode()
    def run(self, inputs: Sequence[numpy.ndarray], switch: Mapping[str, numpy.ndarray]) -> numpy.ndarray:
        """Map inputs to logits; there is nothing to switch."""
        return self._call(*map(torch.from_numpy, inputs)).numpy()
