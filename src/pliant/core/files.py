"""Files that are whole at any moment: the old one or the new one, never half of either."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["read_text", "write_atomically", "write_text"]


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what is written there replaces `path` when the block ends well.

    A reader sees the old file or the new one, never half of one, also when the disk is full or the
    process is killed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str, what: str, error: type[ValueError] = ValueError) -> None:
    """Write a text as a whole; `what` is what people call it.

    Raises:
        ValueError: it cannot be written, for instance because the disk is full; names the path. Of the class `error`.
    """
    try:
        with write_atomically(Path(path)) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as reason:
        raise error(f"{path}: the {what} cannot be written here ({reason.strerror})") from None


def read_text(path: str | os.PathLike[str], what: str, error: type[ValueError] = ValueError) -> str:
    """Read a text; `what` is what people call it.

    Raises:
        ValueError: there is no such file, or it is no text; names the path. Of the class `error`.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as reason:
        why = reason.strerror if isinstance(reason, OSError) else "not a text file"
        raise error(f"{path}: no {what} can be read here ({why})") from None
