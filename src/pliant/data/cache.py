"""The cache: what was unpacked, decoded or downloaded once."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

__all__ = ["cache_folder", "cached_tensors", "fingerprint", "locked"]


def cache_folder(given: str | os.PathLike[str] | None = None) -> Path:
    """Return `given`, else the folder that PLIANT_CACHE names, else the platform's folder for caches."""
    named = given or os.environ.get("PLIANT_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local")).expanduser() / "pliant" / "cache"
    if sys.platform == "darwin":
        return Path("~/Library/Caches/pliant").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pliant"


def fingerprint(*parts: object) -> str:
    """Return sixteen hexadecimal digits that stand for the parts."""
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Let one process at a time make `target`; the folder it is in is made if needed."""
    from filelock import FileLock  # torch itself depends on it

    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(target.name + ".lock")):
        yield


def cached_tensors(target: Path, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors in a safetensors file; if there is none that can be read, make them and write it.

    A cache that cannot be written costs time, not the training: the tensors are returned all the same.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with locked(target):
            try:
                return load_file(target)
            except (OSError, SafetensorError):
                tensors = dict(make())
                _write(target, tensors)
                return tensors
    except OSError:  # the cache's folder or its lock cannot be made
        return dict(make())


def _write(target: Path, tensors: dict[str, Tensor]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
        os.close(descriptor)
        save_file(tensors, temporary)
        os.replace(temporary, target)
    except (OSError, SafetensorError):
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
