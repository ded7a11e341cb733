"""OpenVINO on the CPU: `.onnx` files, static and switchable. Of a condition it runs the branch that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import openvino  # type: ignore[import-not-found]

from pliant.runtime.session import OUTPUT, SWITCHES, Session, only, said_by, switch_of

__all__ = ["open_file"]


def open_file(path: Path, threads: int | None, subnets: Sequence[str] | None = None) -> Session:
    """Load a file: whole, or each of these sub-networks of a switchable one on its own."""
    core = openvino.Core()
    model = core.read_model(path)
    # Left to itself, it computes in bfloat16 where the processor can, and answers differ in the third digit.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    notes = model.get_rt_info()
    said = notes["framework"] if "framework" in notes else {}  # of a type that has no get
    info = said_by({name: str(text.value) for name, text in said.items()})
    rows = info.get("subnets", ())
    if subnets is None or not rows:
        return _Session(core.compile_model(model, "CPU", settings), info)
    sessions = []
    for switch in map(switch_of, only(rows, subnets)):
        sessions.append((switch, _Session(core.compile_model(_settled(model, switch), "CPU", settings), {})))
    return _Apart(sessions, info)


def _settled(model: openvino.Model, switch: Mapping[str, numpy.ndarray]) -> openvino.Model:
    """Return a copy in which what chooses the sub-network is a constant: compiling it leaves no condition."""
    copied = model.clone()
    for name, value in switch.items():
        parameter = copied.input(name).node
        constant = openvino.opset1.constant(value)
        for reader in list(parameter.output(0).get_target_inputs()):
            reader.replace_source_output(constant.output(0))
        copied.remove_parameter(parameter)
    copied.validate_nodes_and_infer_types()
    return copied


class _Session:
    def __init__(self, compiled: openvino.CompiledModel, info: Mapping[str, Any]) -> None:
        self.info = info
        self.version = f"OpenVINO {openvino.__version__.partition('-')[0]}"
        self._request = compiled.create_infer_request()
        self._names = [one.any_name for one in compiled.inputs if one.any_name not in SWITCHES]
        *_, self._largest = [{}, *map(switch_of, self.info.get("subnets", ()))]
        self._most = 0  # inputs at once, so far

    def run(self, inputs: Sequence[numpy.ndarray], switch: Mapping[str, numpy.ndarray]) -> numpy.ndarray:
        given = dict(zip(self._names, inputs, strict=True))
        # Where memory has to grow, the first answer is wrong if a branch that needs more of it did not run before
        # (seen in 2026.4, of transformers): the largest sub-network goes first, and its answer is thrown away.
        if self._largest and len(inputs[0]) > self._most:
            self._request.infer({**given, **self._largest})
        self._most = max(self._most, len(inputs[0]))
        return self._request.infer({**given, **switch})[OUTPUT]


class _Apart:
    """Sub-networks that are compiled one by one, under what would choose them in the whole file."""

    def __init__(self, sessions: Sequence[tuple[Mapping[str, numpy.ndarray], _Session]], info: Mapping[str, Any]):
        self.info = info
        self.version = sessions[0][1].version
        self._sessions = {_key(switch): session for switch, session in sessions}

    def run(self, inputs: Sequence[numpy.ndarray], switch: Mapping[str, numpy.ndarray]) -> numpy.ndarray:
        return self._sessions[_key(switch)].run(inputs, {})


def _key(switch: Mapping[str, numpy.ndarray]) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, value.tobytes()) for name, value in switch.items())
