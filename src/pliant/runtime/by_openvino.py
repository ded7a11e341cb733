"""OpenVINO on the CPU: `.onnx` files, static and switchable. Of a condition it runs the branch that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import openvino  # type: ignore[import-not-found]

from pliant.runtime.session import OUTPUT, said_by, switch_of

__all__ = ["open_file"]


def open_file(path: Path, threads: int | None) -> _Session:
    """Load a file."""
    core = openvino.Core()
    model = core.read_model(path)
    # Left to itself, it computes in bfloat16 where the processor can, and answers differ in the third digit.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    notes = model.get_rt_info()
    said = notes["framework"] if "framework" in notes else {}  # of a type that has no get
    properties = {name: str(text.value) for name, text in said.items()}
    return _Session(core.compile_model(model, "CPU", settings), properties)


class _Session:
    def __init__(self, compiled: openvino.CompiledModel, properties: Mapping[str, str]) -> None:
        self.info = said_by(properties)
        self.version = f"OpenVINO {openvino.__version__.partition('-')[0]}"
        self._request = compiled.create_infer_request()
        self._name = compiled.inputs[0].any_name
        *_, self._largest = [{}, *map(switch_of, self.info.get("subnets", ()))]
        self._most = 0  # inputs at once, so far

    def run(self, inputs: numpy.ndarray, switch: Mapping[str, numpy.ndarray]) -> numpy.ndarray:
        # Where memory has to grow, the first answer is wrong if a branch that needs more of it did not run before
        # (seen in 2026.4, of transformers): the largest sub-network goes first, and its answer is thrown away.
        if self._largest and len(inputs) > self._most:
            self._request.infer({self._name: inputs, **self._largest})
        self._most = max(self._most, len(inputs))
        return self._request.infer({self._name: inputs, **switch})[OUTPUT]
