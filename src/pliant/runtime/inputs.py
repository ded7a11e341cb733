"""What an exported file takes, by what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

__all__ = ["Input", "inputs_in", "text_of"]


@dataclass(frozen=True, kw_only=True)
class Input:
    """One input of a file.

    Attributes:
        name: of the keyword argument that it was, else what it holds, or its number.
        shape: without the batch.
        dtype: as NumPy calls it.
        batched: whether it has the batch as its first dimension.
        least: the smallest value of integers and booleans.
        most: the largest one.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    batched: bool = True
    least: int = 0
    most: int = 0

    def shape_of(self, batch: int | str) -> tuple[int | str, ...]:
        """Return its whole shape; a batch of any size is a name."""
        return (batch, *self.shape) if self.batched else self.shape

    def random(self, numbers: numpy.random.Generator, batch: int) -> numpy.ndarray:
        """Return random numbers of its type."""
        import numpy

        shape: Any = self.shape_of(batch)
        if self.dtype.startswith("float"):
            return numbers.standard_normal(shape, numpy.float32).astype(self.dtype)
        return numbers.integers(self.least, self.most + 1, size=shape).astype(self.dtype)


def inputs_in(info: Mapping[str, Any]) -> tuple[Input, ...]:
    """Return what a file takes, in the order of its inputs; empty where it does not say so.

    Square images and texts say `image_size` and `channels`, or `tokens` and `vocabulary`; everything else `inputs`.
    """
    if "inputs" in info:
        return tuple(Input(**one | {"shape": tuple(one["shape"])}) for one in info["inputs"])
    if "tokens" in info:
        return (Input(name="tokens", shape=(info["tokens"],), dtype="int64", most=info["vocabulary"] - 1),)
    if "image_size" in info:
        side = info["image_size"]
        return (Input(name="images", shape=(info["channels"], side, side), dtype="float32"),)
    return ()


def text_of(info: Mapping[str, Any]) -> str:
    """Say in a few words what a file takes."""
    if "image_size" in info:
        return f"{info['image_size']} px images"
    if "tokens" in info:
        return f"{info['tokens']} tokens"
    shapes = {one.name: "x".join(map(str, one.shape)) for one in inputs_in(info)}
    if [*shapes] == ["images"]:
        return f"{shapes['images']} images"
    return ", ".join(f"{name} {shape}".rstrip() for name, shape in shapes.items())
