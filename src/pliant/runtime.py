"""Run a switchable file: ONNX Runtime and NumPy are all it needs, and PyTorch is not loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from pliant.policy.budget import Budget, choose

if TYPE_CHECKING:
    import numpy
    import onnxruntime

__all__ = ["SwitchableFile", "load"]


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    providers: Sequence[str] = ("CPUExecutionProvider",),
) -> SwitchableFile:
    """Load a file that `pliant.export(..., switchable=...)` wrote.

    Args:
        path: the file.
        threads: how many compute one operator; none = as many as ONNX Runtime likes.
        providers: of ONNX Runtime, the preferred first.

    Raises:
        ValueError: ONNX Runtime does not load the file, or it holds no sub-networks to choose from.
    """
    import onnxruntime

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(path, options, providers=list(providers))
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"{path}: ONNX Runtime does not load it: {reason}") from None
    properties = session.get_modelmeta().custom_metadata_map
    if "subnets" not in properties:
        raise ValueError(
            f"{path}: holds no sub-networks to choose from; expected a file of pliant.export(..., switchable=...)"
        )
    return SwitchableFile(session, properties)


class SwitchableFile:
    """A network whose sub-network is chosen for every call. Made by `load`.

    Attributes:
        table: one row for each sub-network, smallest first: `subnet`, `gmacs`, `params_m`, and what was measured.
        subnets: their texts.
        info: what else the file says of itself: `image_size`, `class_names`, `mean`, `std`, `measured`, ...
        session: of ONNX Runtime.
    """

    def __init__(self, session: onnxruntime.InferenceSession, properties: dict[str, str]) -> None:
        import numpy

        self.session = session
        self.info = {name: _value(text) for name, text in properties.items() if name != "subnets"}
        given, switch = session.get_inputs()
        self._name, self._shape = given.name, given.shape
        self._dtype = numpy.dtype(numpy.int64 if given.type == "tensor(int64)" else numpy.float32)
        rows = json.loads(properties["subnets"])
        self._switches = {row["subnet"]: {switch.name: numpy.array(row.pop(switch.name))} for row in rows}
        self.table: list[dict[str, Any]] = rows
        self.subnets = tuple(self._switches)

    def __call__(self, inputs: numpy.ndarray, subnet: str | None = None) -> numpy.ndarray:
        """Run one sub-network.

        Args:
            inputs: float32 images `[batch, channels, size, size]`, normalised as in the training, or int64 tokens
                `[batch, tokens]`.
            subnet: its text; none = the largest.

        Returns:
            Logits `[batch, classes]`.

        Raises:
            ValueError: there is no such sub-network, or the inputs have another type or shape than the file takes.
        """
        switch = self._switches.get(self.subnets[-1] if subnet is None else subnet)
        if switch is None:
            raise ValueError(f"no sub-network {subnet!r}: allowed are {', '.join(self.subnets)}")
        dtype, shape = getattr(inputs, "dtype", type(inputs).__name__), getattr(inputs, "shape", None)
        if shape is None or dtype != self._dtype:
            raise ValueError(f"inputs: got {dtype}, expected a NumPy array of {self._dtype}")
        if len(shape) != len(self._shape) or any(
            isinstance(wanted, int) and wanted != size for size, wanted in zip(shape, self._shape, strict=True)
        ):
            raise ValueError(f"inputs: got shape {_text(shape)}, expected {_text(self._shape)}")
        return self.session.run(None, {self._name: inputs, **switch})[0]  # type: ignore[return-value]

    def pick(self, **budget: Unpack[Budget]) -> dict[str, Any]:
        """Return the row of the best sub-network for a budget, as `Table.pick` does; its `subnet` is what to call with.

        Raises:
            BudgetError: (a ValueError) the budget makes no sense, was not measured, or no sub-network meets it.
        """
        return dict(choose(self.table, **budget))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text  # some stand as they are, such as versions


def _text(shape: Sequence[Any]) -> str:
    return f"[{', '.join(map(str, shape))}]"
