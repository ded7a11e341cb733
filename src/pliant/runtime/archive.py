"""Where files other than ONNX say what they are; both kinds of `.pt2` are archives."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

__all__ = ["METADATA_FILE", "METADATA_METHOD", "read_archive"]

METADATA_FILE = "pliant.json"
METADATA_METHOD = "pliant_json"
"""Of a `.pte` file."""


def read_archive(path: Path) -> dict[str, Any]:
    """Return what a file says of itself; nothing where `pliant` did not write it."""
    with zipfile.ZipFile(path) as archive:
        # Read from the archive itself: loading a program would unpickle its example images.
        for name in archive.namelist():
            if name.endswith(f"/{METADATA_FILE}"):
                return json.loads(archive.read(name))
    return {}
