"""What others say went wrong, in one line."""

from __future__ import annotations

__all__ = ["first_line"]


def first_line(error: BaseException) -> str:
    """Return the first line that says something, of errors that explain themselves at length."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
