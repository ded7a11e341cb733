"""Files of a run folder that are whole at any moment: the old one or the new one, never half of either."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from pliant.checkpoint import CheckpointError
from pliant.core.files import write_atomically

__all__ = ["AtomicCheckpointIO", "read_state", "remove_leftovers", "write_file"]


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Put `content` at `path`; whatever goes wrong, a file that was there before stays whole.

    Raises:
        CheckpointError: the file cannot be written, for instance because the disk is full.
    """
    try:
        with write_atomically(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        kept = "; the one written before is still whole" if path.exists() else ""
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}{kept}") from error


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of writers of `path` that were killed."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink(missing_ok=True)


def read_state(path: Path) -> dict[str, Any]:
    """Read the state of a run, on the CPU; nothing in the file is ever executed.

    Raises:
        CheckpointError: the file is truncated, corrupt, of an early version that did not write down what a
            training needs to go on, or holds more than tensors and plain values.
    """
    # torch.load also reads bare pickles, its format of long ago, which pliant never wrote.
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is no checkpoint: truncated, corrupt or another kind of file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(f"{path} is refused: it is corrupt or holds more than tensors and plain values") from None
    except (RuntimeError, ValueError, EOFError, LookupError, OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is corrupt: {str(error).partition(chr(10))[0]}") from None
    if not isinstance(state, dict) or "pliant" not in state:
        raise CheckpointError(f"{path} is not the state of a pliant run")
    missing = [name for name in ("recipe", "data") if not isinstance(state["pliant"].get(name), dict)]
    if missing:
        raise CheckpointError(
            f"{path} says nothing of its {' and '.join(missing)}, as an early version of pliant wrote it: it cannot be "
            "resumed; train anew in another folder"
        )
    return state


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's way to files, through `write_file` and `read_state`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Serialise in memory, so that what can fail on the disk is one plain write."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_file(Path(path), buffer.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Load, whatever Lightning asks for, nothing but tensors and plain values."""
        return read_state(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a file."""
        Path(path).unlink(missing_ok=True)
