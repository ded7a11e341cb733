"""The runtimes, in one table: which files each runs, and what brings it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import is_zipfile

from pliant.core.errors import first_line
from pliant.runtime.archive import read_archive
from pliant.runtime.session import Session

__all__ = ["RUNTIMES", "Runtime", "runtime_of"]


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What runs exported files. How it does is in the module `by_...` of this room.

    Attributes:
        name: what users call it.
        title: what its makers call it.
        ending: of the files that it runs.
        format: of these files, in words.
        package: what has to be installed.
        extra: of pliant, which brings the package; empty where it comes with pliant.
        switches: whether it runs files whose sub-network is an input.
        settles: whether it makes a network of its own of each sub-network, where it is told which ones will run.
        quantized: whether there are int8 files for it.
        most: inputs that a file takes at once which was written for any number of them; none = there is no limit.
    """

    name: str
    title: str
    ending: str
    format: str
    package: str
    extra: str = ""
    switches: bool = False
    settles: bool = False
    quantized: bool = False
    most: int | None = None

    def missing(self) -> str:
        """Return a line that says what to install; empty if all is here."""
        try:
            found = find_spec(self.package) is not None
        except ValueError:  # somebody put something else under that name
            found = False
        brings = f"'pliant[{self.extra}]'" if self.extra else self.package
        lacks = f"{self.title} needs the package {self.package}, which is not installed: pip install {brings}"
        return "" if found else lacks

    def module(self) -> ModuleType:
        """Import the module of this room that knows the runtime, and with it the runtime's library."""
        return import_module(f"pliant.runtime.by_{self.name}")

    def open(self, path: Path, threads: int | None, **options: Any) -> Session:
        """Load a file.

        Raises:
            ValueError: the runtime is not installed, or does not take the file; one line.
        """
        if lacks := self.missing():
            raise ValueError(lacks)
        try:
            return self.module().open_file(path, threads, **options)
        except Exception as error:
            raise ValueError(f"{path}: {self.title} does not load it: {first_line(error)}") from error


# Of several that run the same files, the first is the one that nobody has to name.
RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime(
            name="onnxruntime",
            title="ONNX Runtime",
            ending=".onnx",
            format="ONNX",
            package="onnxruntime",
            switches=True,
            quantized=True,
        ),
        Runtime(
            name="openvino",
            title="OpenVINO",
            ending=".onnx",
            format="ONNX",
            package="openvino",
            extra="openvino",
            switches=True,
            settles=True,
            quantized=True,
        ),
        Runtime(name="pytorch", title="PyTorch", ending=".pt2", format="PyTorch program", package="torch"),
        Runtime(name="aotinductor", title="AOTInductor", ending=".pt2", format="AOTInductor package", package="torch"),
        Runtime(
            name="executorch",
            title="ExecuTorch",
            ending=".pte",
            format="ExecuTorch program",
            package="executorch",
            extra="executorch",
            quantized=True,
            most=8,  # memory is set aside for them; at 16 PyTorch takes other convolutions, and the trace ends there
        ),
    )
}


def runtime_of(path: Path, name: str | None = None) -> Runtime:
    """Return the runtime for a file: the one that is named, else what the file says, else the first for its ending.

    Raises:
        ValueError: there is none of that name or for that ending, or the one does not take the other.
    """
    ending = path.suffix.lower()
    fitting = [runtime for runtime in RUNTIMES.values() if runtime.ending == ending]
    if not fitting:
        formats = {runtime.ending: runtime.format for runtime in reversed(RUNTIMES.values())}
        allowed = " or ".join(f"{known} ({form})" for known, form in reversed(formats.items()))
        raise ValueError(f"{path}: unknown ending {path.suffix!r}; expected {allowed}")
    if name is None:
        return next((runtime for runtime in fitting if runtime.name == _said(path)), fitting[0])
    if name not in RUNTIMES:
        raise ValueError(f"runtime: got {name!r}, expected {' or '.join(RUNTIMES)}")
    if RUNTIMES[name] not in fitting:
        raise ValueError(
            f"{path}: {RUNTIMES[name].title} runs {RUNTIMES[name].ending} files; "
            f"{ending} is for {' or '.join(runtime.name for runtime in fitting)}"
        )
    return RUNTIMES[name]


def _said(path: Path) -> str | None:
    """Return which runtime a `.pt2` file that is there says it is for."""
    if path.suffix.lower() != ".pt2" or not path.is_file() or not is_zipfile(path):
        return None
    return read_archive(path).get("runtime")
