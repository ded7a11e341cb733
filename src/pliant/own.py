"""Functions of a person's own, by name: `FILE.py:FUNCTION`, a Python file and, say, what makes a network in it."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

__all__ = ["create", "find", "is_own"]

# Files that were run, by path, time of the last change and size: each once, so that its classes stay the same.
_RUN: dict[tuple[Path, int, int], ModuleType] = {}


def is_own(name: str) -> bool:
    """Whether a name means a function in a file: whoever makes such a network runs the code in that file."""
    return name.rpartition(":")[0].endswith(".py")


def create(name: str, *, num_classes: int | None = None, pretrained: bool = False, **options: Any) -> nn.Module:
    """Run a file and call its function.

    Args:
        name: `my_net.py:make_net`; the path of the file is relative to the working directory.
        num_classes: handed on if the function takes it.
        pretrained: handed on if the function takes it.
        **options: handed on.

    Raises:
        ValueError: no such file or function, it does not take the options, or what it returns is no network.
    """
    make = find(name)
    with _importing_from(_file(name)):
        taken = inspect.signature(make).parameters
        if pretrained and "pretrained" not in taken:
            raise ValueError(f"{name} takes no argument 'pretrained', so it has no pretrained weights")
        given = {"num_classes": num_classes, "pretrained": pretrained or None}
        options |= {key: value for key, value in given.items() if key in taken and value is not None}
        try:
            inspect.signature(make).bind(**options)
        except TypeError as error:
            raise ValueError(f"{name}: options {options} are not what it takes ({error})") from None
        model = make(**options)
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} returns a {type(model).__name__}, expected a torch.nn.Module")
    return model


def find(name: str) -> Callable[..., Any]:
    """Run a file and return its function.

    Args:
        name: see `create`.

    Raises:
        ValueError: no such file or function.
    """
    file, function = _file(name), name.rpartition(":")[2]
    with _importing_from(file):
        found = getattr(_run(file), function, None)
    if not callable(found):
        raise ValueError(f"{name}: there is no function {function!r} in {file}")
    return found


def _file(name: str) -> Path:
    return Path(name.rpartition(":")[0])


def _run(file: Path) -> ModuleType:
    if not file.is_file():
        raise ValueError(f"{file}: no such file; expected FILE.py:FUNCTION")
    state = file.stat()
    key = (file.resolve(), state.st_mtime_ns, state.st_size)
    if key not in _RUN:
        # Not the file's own name, which may be that of a library.
        name = f"pliant_own_{file.stem}"
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise ValueError(f"{file} ends with {type(error).__name__}: {error}") from error
        _RUN[key] = module
    return _RUN[key]


@contextmanager
def _importing_from(file: Path) -> Iterator[None]:
    """Let a file import those beside it, as if it was run by itself."""
    folder = file.resolve().parent
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
