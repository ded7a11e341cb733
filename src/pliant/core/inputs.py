"""What goes into a network and what comes out of it: example inputs, and the logits of any library's output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "InputSpec",
    "TensorSpec",
    "class_logits",
    "example_from",
    "example_input",
    "images_alone",
    "input_spec",
    "logits_of",
    "spec_of_example",
]


@dataclass(frozen=True)
class InputSpec:
    """One input of a network, without the batch.

    Attributes:
        shape: `(channels, height, width)` of an image, or `(tokens,)` of a text.
        vocabulary: how many tokens there are; 0 for images.
    """

    shape: tuple[int, ...]
    vocabulary: int = 0

    def empty(self, batch: int, **place: Any) -> Tensor:
        """Return `[batch, *shape]` without values: for the meta device; `place` is a dtype and a device."""
        return torch.empty((batch, *self.shape), **self._typed(place))

    def random(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Return normally distributed images or evenly distributed tokens `[batch, *shape]` on the CPU."""
        shape = (batch, *self.shape)
        if self.vocabulary:
            return torch.randint(self.vocabulary, shape, generator=generator)
        return torch.randn(shape, generator=generator)

    def _typed(self, place: dict[str, Any]) -> dict[str, Any]:
        return place | {"dtype": torch.long} if self.vocabulary else place


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of an example, without its values.

    Attributes:
        shape: of the whole tensor, the batch included.
        dtype: of the tensor.
        least: the smallest value of integers and booleans.
        most: the largest one.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    least: int = 0
    most: int = 0

    @classmethod
    def of(cls, tensor: Tensor) -> TensorSpec:
        """Describe a tensor."""
        if tensor.is_floating_point() or tensor.is_complex() or tensor.is_meta or not tensor.numel():
            return cls(tuple(tensor.shape), tensor.dtype)
        return cls(tuple(tensor.shape), tensor.dtype, int(tensor.min()), int(tensor.max()))

    def random(self, generator: torch.Generator) -> Tensor:
        """Return normally distributed floating point numbers, or evenly distributed others, on the CPU."""
        if self.dtype.is_floating_point or self.dtype.is_complex:
            return torch.randn(self.shape, generator=generator).to(self.dtype)
        return torch.randint(self.least, self.most + 1, self.shape, generator=generator).to(self.dtype)


def spec_of_example(example: Any) -> Any:
    """Return an example with a `TensorSpec` for every tensor in it: what goes into a network, and no memory."""
    if isinstance(example, Tensor):
        return TensorSpec.of(example)
    if isinstance(example, Mapping):
        return {name: spec_of_example(value) for name, value in example.items()}
    return tuple(map(spec_of_example, example)) if isinstance(example, tuple | list) else example


def example_from(spec: Any, batch: int | None = None) -> Any:
    """Return an example that `spec_of_example` described, with random numbers that are always the same.

    Args:
        spec: what it described.
        batch: the most inputs in it, which tensors have as their first dimension; none = as many as there were.
    """
    generator = torch.Generator().manual_seed(0)

    def made(part: Any) -> Any:
        if isinstance(part, TensorSpec):
            return part.random(generator)[:batch] if part.shape else part.random(generator)
        if isinstance(part, dict):
            return {name: made(value) for name, value in part.items()}
        return tuple(map(made, part)) if isinstance(part, tuple) else part

    return made(spec)


def input_spec(network: nn.Module, size: int) -> InputSpec:
    """Return what a network takes, by its first layer: an embedding takes tokens, a convolution images.

    Args:
        network: any.
        size: height and width of the images in pixels, or the number of tokens.
    """
    for module in network.modules():
        if isinstance(module, nn.Embedding):
            return InputSpec((size,), module.num_embeddings)
        if isinstance(module, nn.Conv2d):
            return InputSpec((module.in_channels, size, size))
    return InputSpec((3, size, size))


def images_alone(batch: object, caller: str) -> Tensor:
    """Return a batch that `caller` was given, refusing one that has labels beside its images.

    Raises:
        ValueError: it is not one tensor.
    """
    if not isinstance(batch, Tensor):
        raise ValueError(
            f"{caller}: got a batch that is a {type(batch).__name__}, expected images alone, one tensor [batch, ...]"
        )
    return batch


def example_input(network: nn.Module, size: int) -> Tensor:
    """Return one input that a network takes, always the same: random numbers, which no layer turns into nothing."""
    return input_spec(network, size).random(1, torch.Generator().manual_seed(0))


def logits_of(output: Any) -> Tensor:
    """Return the logits of what a network returned: a tensor, or an object of transformers that holds `logits`.

    Raises:
        ValueError: neither.
    """
    if isinstance(output, Tensor):
        return output
    logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise ValueError(f"the network returns a {type(output).__name__}; expected logits, or an object that has them")
    return logits


def class_logits(output: Any, num_classes: int) -> Tensor:
    """Return one logit a class of what a network returned for a batch of images, to compute an accuracy.

    One logit that says yes or no is two classes: 0 and itself, so that a positive one says yes.

    Args:
        output: what `logits_of` takes.
        num_classes: of the data.

    Returns:
        `[batch, num_classes]`.

    Raises:
        ValueError: the network does not classify images into so many classes.
    """
    logits = logits_of(output)
    if num_classes == 2 and logits.shape in (logits.shape[:1], (*logits.shape[:1], 1)):
        logits = torch.stack([torch.zeros_like(one := logits.flatten()), one], dim=1)
    if logits.dim() != 2 or logits.shape[1] != num_classes:
        outputs = " x ".join(map(str, logits.shape[1:])) or "1"
        raise ValueError(f"the network has {outputs} outputs, but the data has {num_classes} classes")
    return logits
