"""The AOTInductor package (`.pt2`): a sub-network compiled for this kind of machine."""

from __future__ import annotations

import json
import logging
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from pliant.core.errors import first_line
from pliant.export.verify import ExportError
from pliant.runtime.archive import METADATA_FILE

__all__ = ["write_package"]


def write_package(program: ExportedProgram, path: Path, metadata: Mapping[str, Any]) -> None:
    """Compile, and write a `.pt2` file; `metadata` becomes a JSON file within it.

    Raises:
        ExportError: there is no C++ compiler, or it fails.
    """
    _require_compiler()
    loggers = [logging.getLogger(name) for name in ("torch._inductor", "torch.utils.cpp_extension")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    except Exception as error:
        raise ExportError(f"AOTInductor cannot compile this network: {first_line(error)}") from error
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
    with zipfile.ZipFile(path, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/extra/{METADATA_FILE}", json.dumps({**metadata, "runtime": "aotinductor"}))


def _require_compiler() -> None:
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        raise ExportError(
            "AOTInductor needs a C++ compiler, and none is found here: install g++ (apt install g++, or the Xcode "
            "command line tools), or name one in the environment variable CXX"
        ) from None
