"""What was measured, as a file of JSON that says its version."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from pliant.core.files import read_text, write_text

__all__ = ["read_document", "write_document"]


def write_document(path: str | os.PathLike[str], document: Mapping[str, Any], what: str) -> None:
    """Write a document; a file that was there stays whole until the new one is complete.

    Raises:
        ValueError: it cannot be written; names the path and `what` it is.
    """
    write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n", what)


def read_document(path: str | os.PathLike[str], newest: int, what: str) -> dict[str, Any]:
    """Read what `write_document` wrote, of a version up to `newest`.

    Raises:
        ValueError: no such file, or not such a document; names the path and `what` was expected.
    """
    text = read_text(path, what)
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: no {what} can be read here ({error})") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path}: no {what} can be read here (expected a JSON object)")
    version = document.get("version")
    if isinstance(version, int) and version > newest:
        raise ValueError(f"{path}: version {version} is newer than this pliant knows ({newest})")
    return document
