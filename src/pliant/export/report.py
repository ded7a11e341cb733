"""`ExportReport`: what was written and how it was checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["ExportReport"]


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was written and how it was checked.

    Attributes:
        path: the file.
        format: `ONNX` or `PyTorch program`.
        subnet: the sub-network as text; none where the file has none or several.
        role: `super-net`, `base-net`, `sub-network`, `network`, `policy`, `gate` or `switchable`.
        subnets: where a policy was given, those that the file answers with, in the order in which they are tried;
            of a switchable file all, smallest to largest; of one with a gate its routes.
        precision: in what it computes, `float32` or `int8`.
        calibrated_on: of an int8 file, from how many images the ranges of its layers are.
        recalibrated_on: from how many training images its norm statistics were taken anew; none = they are those
            of the model.
        input_shape: `(channels, height, width)` of an image that the file takes, or `(tokens,)`; of several inputs that
            of the first.
        inputs: what the file takes, for people.
        batch: the fixed batch size; none = any.
        most: inputs that it takes at once at most, where any is; none = there is no limit.
        size_mb: length of the file, 10^6 bytes.
        runtime: name and version of what ran the file.
        difference: largest difference from eager PyTorch, as `largest_difference` gives it; of all paths. Of an int8
            file the share of the calibration images to which it gives another class.
        tolerance: what it was allowed to be.
        seconds: for everything, the check included.
    """

    path: Path
    format: str
    subnet: str | None = None
    role: str
    subnets: tuple[str, ...] = ()
    precision: str = "float32"
    calibrated_on: int | None = None
    recalibrated_on: int | None = None
    input_shape: tuple[int, ...]
    inputs: str
    batch: int | None
    most: int | None = None
    size_mb: float
    runtime: str
    difference: float
    tolerance: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain = {"path": str(self.path), "input_shape": list(self.input_shape), "subnets": list(self.subnets)}
        return {**asdict(self), **plain}

    def __str__(self) -> str:
        inputs = f"texts of {self.inputs}"
        if not inputs.endswith("tokens"):
            inputs = f"inputs of {self.inputs.removeprefix('inputs ')}"
        if self.inputs.endswith("images"):
            inputs = f"{'x'.join(map(str, self.input_shape))} images"
        what = self.role if self.subnet is None else f"{self.role} {self.subnet}"
        if self.role == "switchable":
            what = f"{len(self.subnets)} sub-networks from {self.subnets[0]} to {self.subnets[-1]}"
        elif self.role == "gate":
            what = f"what the gate chooses of {', '.join(self.subnets)}"
        elif self.subnets:
            what = f"the first sure answer of {', '.join(self.subnets)}"
        batch = f"batches of {self.batch}" if self.batch else f"up to {self.most}" if self.most else "any number of"
        anew = f", norm statistics from {self.recalibrated_on} training images" if self.recalibrated_on else ""
        every = " on every path" if self.subnets else ""
        file = f"{self.path}: {what} as {self.format}, {self.size_mb:.2f} MB, for {batch} {inputs}{anew}"
        if self.precision == "int8":
            agrees = f"gives the class of eager PyTorch to {1 - self.difference:.1%} of {self.calibrated_on}"
            return f"{file}; {self.runtime} in int8 {agrees} calibration images (needed {1 - self.tolerance:.0%})"
        differs = f"differs from eager PyTorch{every} by {self.difference:.1e} (allowed {self.tolerance:.0e})"
        return f"{file}; {self.runtime} {differs}"
