"""ExecuTorch with XNNPACK: `.pte` programs, one for each sub-network."""

from __future__ import annotations

import json
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pliant.runtime.archive import METADATA_METHOD
from pliant.runtime.by_pytorch import TorchSession

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it says of itself that it is experimental
    from executorch.extension.pybindings import portable_lib  # type: ignore[import-not-found]
    from executorch.runtime import Runtime  # type: ignore[import-not-found]

__all__ = ["open_file", "read_info"]


def open_file(path: Path, threads: int | None) -> TorchSession:
    """Load a file; `threads` are those of the whole process."""
    if threads is not None:
        portable_lib._unsafe_reset_threadpool(threads)
    program = Runtime.get().load_program(path)
    forward = program.load_method("forward")

    def call(*inputs: torch.Tensor) -> torch.Tensor:
        return forward.execute([one.contiguous() for one in inputs])[0].clone()  # the method's own memory

    return TorchSession(call, _info(program), f"ExecuTorch {version('executorch')}")


def read_info(path: Path) -> dict[str, Any]:
    """Return what a file says of itself; nothing where `pliant` did not write it."""
    return _info(Runtime.get().load_program(path))


def _info(program: Any) -> dict[str, Any]:
    if METADATA_METHOD not in program.method_names:
        return {}
    return json.loads(program.load_method(METADATA_METHOD).execute([])[0])
