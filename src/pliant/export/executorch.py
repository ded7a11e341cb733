"""The ExecuTorch program file (`.pte`), whose operators are handed to XNNPACK."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from pliant.core.errors import first_line
from pliant.export.verify import ExportError
from pliant.runtime.archive import METADATA_METHOD

__all__ = ["write_executorch"]


def write_executorch(program: ExportedProgram, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a `.pte` file; `metadata` becomes a method of it that returns JSON.

    Raises:
        ExportError: ExecuTorch cannot express the network.
    """
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)  # what its import registers is not ours to change
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # type: ignore[import-not-found]
            XnnpackPartitioner,
        )
        from executorch.exir import to_edge_transform_and_lower  # type: ignore[import-not-found]

        try:
            lowered = to_edge_transform_and_lower(
                program,
                partitioner=[XnnpackPartitioner()],
                constant_methods={METADATA_METHOD: json.dumps(metadata)},
            ).to_executorch()
        except Exception as error:
            raise ExportError(f"ExecuTorch cannot express this network: {first_line(error)}") from error
    path.write_bytes(lowered.buffer)
