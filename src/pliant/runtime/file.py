"""`load`: an exported file, ready to run, which knows its sub-networks and what it takes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from pliant.policy.budget import Budget, choose
from pliant.runtime.inputs import inputs_in
from pliant.runtime.runtimes import runtime_of
from pliant.runtime.session import SWITCHES, Session, check_name, only, switch_of

if TYPE_CHECKING:
    import numpy

__all__ = ["ExportedFile", "load"]

Arrays = Any
"""A NumPy array, or of a file with several inputs a dictionary of such by name, or a sequence in its order."""


def load(
    path: str | os.PathLike[str],
    *,
    runtime: str | None = None,
    subnets: Sequence[str] | None = None,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
) -> ExportedFile:
    """Load a file that `pliant.export` wrote: of one sub-network, or switchable.

    Args:
        path: the file.
        runtime: what runs it, such as `openvino`; none = what its ending stands for, ONNX Runtime for `.onnx`.
        subnets: the only sub-networks that will run; none = all. OpenVINO then compiles each of them on its own: as
            fast as from a file of its own, in the memory of all of them.
        threads: how many compute one operator; none = as many as the runtime likes.
        providers: of ONNX Runtime, the preferred first; none = the CPU.

    Raises:
        ValueError: the runtime is not installed or does not load the file, `pliant` did not write it, it stops by a
            policy of its own, or it has not all of `subnets`.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    chosen = runtime_of(path, runtime)
    if providers is not None and chosen.name != "onnxruntime":
        raise ValueError(f"providers: only onnxruntime has any, and {path} is run by {chosen.name}; leave them out")
    options: dict[str, Any] = {} if providers is None else {"providers": providers}
    if subnets is not None and chosen.settles:
        options["subnets"] = subnets
    session = chosen.open(path, threads, **options)
    if not inputs_in(session.info):
        raise ValueError(f"{path}: does not say what it takes (image_size); expected a file of pliant.export")
    if "policy" in session.info:
        raise ValueError(f"{path}: stops by a policy of its own, and holds no sub-networks to choose from")
    return ExportedFile(session, subnets)


class ExportedFile:
    """A network in its runtime; of a switchable file the sub-network is chosen for every call. Made by `load`.

    Attributes:
        table: one row for each sub-network, smallest first: `subnet`, `gmacs`, `params_m`, and what was measured.
        subnets: the texts of those that were asked for; of a network that has none its name.
        inputs: what it takes: name, shape and type of each input.
        info: what else the file says of itself: `image_size`, `class_names`, `mean`, `std`, `measured`, ...
        session: what the runtime made of the file.
    """

    def __init__(self, session: Session, subnets: Sequence[str] | None = None) -> None:
        self.session = session
        self.info = {name: value for name, value in session.info.items() if name != "subnets"}
        self.inputs = inputs_in(self.info)
        rows = only(session.info.get("subnets", [_only_row(self.info)]), subnets)
        self.table = [{key: value for key, value in row.items() if key not in SWITCHES} for row in rows]
        self._switches = {row["subnet"]: switch_of(row) for row in rows}
        self.subnets = tuple(self._switches)

    def __call__(self, inputs: Arrays, subnet: str | None = None) -> numpy.ndarray:
        """Run one sub-network.

        Args:
            inputs: float32 images `[batch, channels, height, width]`, normalised as in the training, int64 tokens
                `[batch, tokens]`, or whatever else `inputs` says; of several a dictionary by name, or a sequence.
            subnet: its text; none = the largest.

        Returns:
            Logits `[batch, classes]`.

        Raises:
            ValueError: there is no such sub-network, or the inputs have another type or shape than the file takes.
        """
        chosen = self.subnets[-1] if subnet is None else subnet
        check_name(chosen, self.subnets)
        return self.session.run(self.check(inputs), self._switches[chosen])

    def check(self, inputs: Arrays) -> list[numpy.ndarray]:
        """Refuse inputs that the file does not take, and return the others in its order.

        Raises:
            ValueError: they have another type or shape, or are too many at once, or some are missing.
        """
        arrays = self._in_order(inputs)
        batch = self.info.get("batch", "batch")
        for wanted, array in zip(self.inputs, arrays, strict=True):
            name = "inputs" if len(arrays) == 1 else wanted.name
            dtype, shape = getattr(array, "dtype", type(array).__name__), getattr(array, "shape", None)
            if shape is None or dtype != wanted.dtype:
                raise ValueError(f"{name}: got {dtype}, expected a NumPy array of {wanted.dtype}")
            expected = wanted.shape_of(batch)
            if len(shape) != len(expected) or any(
                isinstance(length, int) and length != size for size, length in zip(shape, expected, strict=True)
            ):
                raise ValueError(f"{name}: got shape {_text(shape)}, expected {_text(expected)}")
            batch = shape[0] if wanted.batched else batch
        most = self.info.get("most")
        if most is not None and batch > most:
            raise ValueError(f"inputs: got {batch} at once, and the file takes {most} at most; split them")
        return arrays

    def _in_order(self, inputs: Arrays) -> list[numpy.ndarray]:
        names = [wanted.name for wanted in self.inputs]
        if isinstance(inputs, Mapping):
            if set(inputs) != set(names):
                raise ValueError(f"inputs: got {', '.join(map(str, inputs))}, expected {', '.join(names)}")
            return [inputs[name] for name in names]
        arrays = [*inputs] if isinstance(inputs, tuple | list) else [inputs]
        if len(arrays) != len(names):
            raise ValueError(f"inputs: got {len(arrays)}, expected {len(names)}: {', '.join(names)}")
        return arrays

    def example(self, batch_size: int = 1) -> Any:
        """Return `batch_size` inputs of the type and shape that the file takes: random numbers, always the same.

        Several inputs are a dictionary by name.
        """
        import numpy

        numbers = numpy.random.default_rng(0)
        made = {wanted.name: wanted.random(numbers, batch_size) for wanted in self.inputs}
        return made if len(made) > 1 else next(iter(made.values()))

    def pick(self, **budget: Unpack[Budget]) -> dict[str, Any]:
        """Return the row of the best sub-network for a budget, as `Table.pick` does; its `subnet` is what to call with.

        Raises:
            BudgetError: (a ValueError) the budget makes no sense, was not measured, or no sub-network meets it.
        """
        return dict(choose(self.table, **budget))


def _only_row(info: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: info[key] for key in ("gmacs", "params_m", "acc1") if key in info}
    return {"subnet": info.get("subnet") or info.get("model") or "network", **known}


def _text(shape: Sequence[Any]) -> str:
    return f"[{', '.join(map(str, shape))}]"
