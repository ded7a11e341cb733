"""ONNX Runtime: `.onnx` files, static and switchable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy
import onnxruntime

from pliant.runtime.session import OUTPUT, SWITCHES, said_by

__all__ = ["open_file"]


def open_file(path: Path, threads: int | None, providers: Sequence[str] = ("CPUExecutionProvider",)) -> _Session:
    """Load a file; `providers` are those of ONNX Runtime, the preferred first."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Threads that go on spinning after a run take the cores from whatever runs next: a second file, or PyTorch.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    return _Session(onnxruntime.InferenceSession(path, options, providers=list(providers)))


class _Session:
    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session
        self.info = said_by(session.get_modelmeta().custom_metadata_map)
        self.version = f"ONNX Runtime {onnxruntime.__version__}"
        self._names = [one.name for one in session.get_inputs() if one.name not in SWITCHES]

    def run(self, inputs: Sequence[numpy.ndarray], switch: Mapping[str, numpy.ndarray]) -> numpy.ndarray:
        given = dict(zip(self._names, inputs, strict=True))
        return self.session.run([OUTPUT], {**given, **switch})[0]  # type: ignore[return-value]
