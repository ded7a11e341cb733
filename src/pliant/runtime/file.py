"""`load`: an exported file, ready to run, which knows its sub-networks and what it takes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from pliant.policy.budget import Budget, choose
from pliant.runtime.runtimes import runtime_of
from pliant.runtime.session import SWITCHES, Session, check_name, only, switch_of

if TYPE_CHECKING:
    import numpy

__all__ = ["ExportedFile", "load"]


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
    if not {"image_size", "tokens"} & set(session.info):
        raise ValueError(f"{path}: does not say what it takes (image_size); expected a file of pliant.export")
    if "policy" in session.info:
        raise ValueError(f"{path}: stops by a policy of its own, and holds no sub-networks to choose from")
    return ExportedFile(session, subnets)


class ExportedFile:
    """A network in its runtime; of a switchable file the sub-network is chosen for every call. Made by `load`.

    Attributes:
        table: one row for each sub-network, smallest first: `subnet`, `gmacs`, `params_m`, and what was measured.
        subnets: the texts of those that were asked for; of a network that has none its name.
        info: what else the file says of itself: `image_size`, `class_names`, `mean`, `std`, `measured`, ...
        session: what the runtime made of the file.
    """

    def __init__(self, session: Session, subnets: Sequence[str] | None = None) -> None:
        import numpy

        self.session = session
        self.info = {name: value for name, value in session.info.items() if name != "subnets"}
        self._shape, dtype = _inputs(self.info)
        self._dtype = numpy.dtype(dtype)
        rows = only(session.info.get("subnets", [_only_row(self.info)]), subnets)
        self.table = [{key: value for key, value in row.items() if key not in SWITCHES} for row in rows]
        self._switches = {row["subnet"]: switch_of(row) for row in rows}
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
        chosen = self.subnets[-1] if subnet is None else subnet
        check_name(chosen, self.subnets)
        self.check(inputs)
        return self.session.run(inputs, self._switches[chosen])

    def check(self, inputs: numpy.ndarray) -> None:
        """Refuse inputs that the file does not take.

        Raises:
            ValueError: they have another type or shape, or are too many at once.
        """
        dtype, shape = getattr(inputs, "dtype", type(inputs).__name__), getattr(inputs, "shape", None)
        if shape is None or dtype != self._dtype:
            raise ValueError(f"inputs: got {dtype}, expected a NumPy array of {self._dtype}")
        if len(shape) != len(self._shape) or any(
            isinstance(wanted, int) and wanted != size for size, wanted in zip(shape, self._shape, strict=True)
        ):
            raise ValueError(f"inputs: got shape {_text(shape)}, expected {_text(self._shape)}")
        most = self.info.get("most")
        if most is not None and shape[0] > most:
            raise ValueError(f"inputs: got {shape[0]} at once, and the file takes {most} at most; split them")

    def example(self, batch_size: int = 1) -> numpy.ndarray:
        """Return `batch_size` inputs of the type and shape that the file takes: random numbers, always the same."""
        import numpy

        numbers, shape = numpy.random.default_rng(0), (batch_size, *self._shape[1:])
        if "tokens" in self.info:
            return numbers.integers(self.info["vocabulary"], size=shape)
        return numbers.standard_normal(shape, numpy.float32)

    def pick(self, **budget: Unpack[Budget]) -> dict[str, Any]:
        """Return the row of the best sub-network for a budget, as `Table.pick` does; its `subnet` is what to call with.

        Raises:
            BudgetError: (a ValueError) the budget makes no sense, was not measured, or no sub-network meets it.
        """
        return dict(choose(self.table, **budget))


def _inputs(info: Mapping[str, Any]) -> tuple[tuple[Any, ...], str]:
    """Return shape and type of what a file takes; a batch of any size is a name."""
    batch = info.get("batch", "batch")
    if "tokens" in info:
        return (batch, info["tokens"]), "int64"
    return (batch, info["channels"], info["image_size"], info["image_size"]), "float32"


def _only_row(info: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: info[key] for key in ("gmacs", "params_m", "acc1") if key in info}
    return {"subnet": info.get("subnet") or info.get("model") or "network", **known}


def _text(shape: Sequence[Any]) -> str:
    return f"[{', '.join(map(str, shape))}]"
