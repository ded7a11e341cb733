"""What goes into a network and what comes out of it: example inputs, and the logits of any library's output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = [
    "InputSpec",
    "TensorSpec",
    "arguments_of",
    "class_logits",
    "example_input",
    "images_alone",
    "input_spec",
    "logits_of",
    "placed",
    "run_on",
    "spec_of_example",
    "tensors_of",
]


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

    @property
    def is_floating(self) -> bool:
        """Whether it holds floating point numbers, which take the type of the network."""
        return self.dtype.is_floating_point

    def random(self, generator: torch.Generator | None) -> Tensor:
        """Return normally distributed floating point numbers, or evenly distributed others, on the CPU."""
        if self.is_floating or self.dtype.is_complex:
            return torch.randn(self.shape, generator=generator).to(self.dtype)
        return torch.randint(self.least, self.most + 1, self.shape, generator=generator).to(self.dtype)

    def empty(self, **place: Any) -> Tensor:
        """Return a tensor without values; `place` is a device and the dtype of floating point numbers."""
        wanted = place.pop("dtype", self.dtype)
        return torch.empty(self.shape, dtype=wanted if self.is_floating else self.dtype, **place)


@dataclass(frozen=True)
class InputSpec:
    """What a network takes in a pass: an example, without its values.

    The size of its batch is the first dimension of its first tensor; all tensors of that first dimension are batched.

    Attributes:
        example: what `spec_of_example` returned: a `TensorSpec`, a tuple of arguments or a dictionary of keyword
            arguments, with such for tensors and other values as they are.
    """

    example: Any

    @classmethod
    def of(cls, shape: tuple[int, ...], vocabulary: int = 0) -> InputSpec:
        """Return one tensor `[batch, *shape]`: of floating point numbers, or where there is a vocabulary, of tokens."""
        if vocabulary:
            return cls(TensorSpec((1, *shape), torch.long, 0, vocabulary - 1))
        return cls(TensorSpec((1, *shape), torch.float32))

    @property
    def tensors(self) -> list[TensorSpec]:
        """All tensors, in the order of the arguments."""
        return [leaf for leaf in tree_leaves(self.example) if isinstance(leaf, TensorSpec)]

    @property
    def only(self) -> TensorSpec | None:
        """The tensor, where the network takes one and nothing else."""
        return self.example if isinstance(self.example, TensorSpec) else None

    @property
    def is_image(self) -> bool:
        """Whether it is one tensor of images `[batch, channels, height, width]`."""
        return self.only is not None and len(self.only.shape) == 4

    @property
    def vocabulary(self) -> int:
        """How many tokens there are, of one tensor of texts `[batch, tokens]`; 0 for everything else."""
        texts = self.only is not None and self.only.dtype == torch.long and len(self.only.shape) == 2
        return self.tensors[0].most + 1 if texts else 0

    @property
    def size(self) -> int | None:
        """Height and width of square images in pixels, or the number of tokens of texts; none for everything else."""
        square = self.is_image and self.shape[-1] == self.shape[-2]
        return self.shape[-1] if square or self.vocabulary else None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first tensor, without the batch."""
        return self.tensors[0].shape[1:] if self.tensors else ()

    @property
    def named(self) -> dict[str, TensorSpec]:
        """All tensors by name: that of the keyword argument, else what it holds, or its number."""
        if self.only is None:
            return dict(_named(self.example, ""))
        return {"tokens" if self.vocabulary else "images" if self.is_image else "inputs": self.only}

    def is_batched(self, tensor: TensorSpec) -> bool:
        """Whether a tensor has one entry for each input of a batch."""
        return len(tensor.shape) > 0 and tensor.shape[0] == next(one.shape[0] for one in self.tensors if one.shape)

    def random(self, batch: int | None = None, generator: torch.Generator | None = None) -> Any:
        """Return an example of so many inputs, on the CPU; none = as many as there were."""
        return self._filled(batch, lambda tensor: tensor.random(generator))

    def empty(self, batch: int, **place: Any) -> Any:
        """Return an example without values: for the meta device; `place` is a dtype and a device."""
        return self._filled(batch, lambda tensor: tensor.empty(**place))

    def _filled(self, batch: int | None, make: Callable[[TensorSpec], Tensor]) -> Any:
        def filled(tensor: TensorSpec) -> Tensor:
            if batch is None or not self.is_batched(tensor):
                return make(tensor)
            return make(replace(tensor, shape=(batch, *tensor.shape[1:])))

        return tree_map_only(TensorSpec, filled, self.example)

    def of_size(self, size: int) -> InputSpec:
        """Return square images of so many pixels, or texts of so many tokens, in place of those of another size.

        Raises:
            ValueError: it is neither.
        """
        if not self.is_image and not self.vocabulary:
            raise ValueError(
                f"image_size: got {size}, expected none: the example of this network is no image ({self}); leave it out"
            )
        shape = (size,) if self.vocabulary else (self.shape[0], size, size)
        return InputSpec(replace(self.tensors[0], shape=(self.tensors[0].shape[0], *shape)))

    def of_dtype(self, dtype: torch.dtype) -> InputSpec:
        """Return the same with floating point numbers of another type."""
        return InputSpec(
            tree_map_only(TensorSpec, lambda one: replace(one, dtype=dtype) if one.is_floating else one, self.example)
        )

    def __str__(self) -> str:
        shapes = {name: "x".join(map(str, tensor.shape[1:])) for name, tensor in self.named.items()}
        if self.vocabulary:
            return f"{self.size} tokens"
        if self.is_image:
            return f"{self.size} px images" if self.size else f"{shapes['images']} images"
        return ", ".join(f"{name} {shape}".rstrip() for name, shape in shapes.items())

    def to_dict(self) -> dict[str, Any]:
        """Return what fits into JSON; `from_dict` reads it.

        Raises:
            TypeError: the example holds a value that does not.
        """
        return _plain(self.example)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> InputSpec:
        """Build from what `to_dict` gave.

        Raises:
            ValueError: it is not such a dictionary.
        """
        try:
            return cls(_read(data))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not an example: {error}") from None


def _named(part: Any, name: str) -> Iterator[tuple[str, TensorSpec]]:
    if isinstance(part, TensorSpec):
        yield name, part
    elif isinstance(part, dict):
        for key, value in part.items():
            yield from _named(value, f"{name}_{key}" if name else str(key))
    elif isinstance(part, tuple):
        for number, value in enumerate(part, start=1):
            yield from _named(value, f"{name or 'input'}_{number}")


def _plain(part: Any) -> dict[str, Any]:
    if isinstance(part, TensorSpec):
        dtype = str(part.dtype).removeprefix("torch.")
        return {"shape": list(part.shape), "dtype": dtype} | (
            {} if part.is_floating else {"least": part.least, "most": part.most}
        )
    if isinstance(part, dict):
        return {"dict": {name: _plain(value) for name, value in part.items()}}
    if isinstance(part, tuple):
        return {"tuple": [_plain(value) for value in part]}
    if part is None or isinstance(part, bool | int | float | str):
        return {"value": part}
    raise TypeError(f"a {type(part).__name__} does not fit into JSON")


def _read(data: Mapping[str, Any]) -> Any:
    if "shape" in data:
        dtype = getattr(torch, data["dtype"])
        return TensorSpec(tuple(data["shape"]), dtype, data.get("least", 0), data.get("most", 0))
    if "dict" in data:
        return {name: _read(value) for name, value in data["dict"].items()}
    return tuple(map(_read, data["tuple"])) if "tuple" in data else data["value"]


def spec_of_example(example: Any) -> Any:
    """Return an example with a `TensorSpec` for every tensor in it: what goes into a network, and no memory."""
    if isinstance(example, Tensor):
        return TensorSpec.of(example)
    if isinstance(example, Mapping):
        return {name: spec_of_example(value) for name, value in example.items()}
    return tuple(map(spec_of_example, example)) if isinstance(example, tuple | list) else example


def arguments_of(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments that an example stands for.

    Raises:
        ValueError: neither a tensor, a tuple of arguments nor a dictionary of keyword arguments.
    """
    if isinstance(example, Tensor):
        return (example,), {}
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, tuple | list):
        return tuple(example), {}
    raise ValueError(
        f"example: got a {type(example).__name__}, expected one input of the model: a tensor, a tuple of "
        "arguments or a dictionary of keyword arguments"
    )


def run_on(network: Callable[..., Any], example: Any, **more: Any) -> Any:
    """Run a network on an example, with `more` keyword arguments."""
    args, kwargs = arguments_of(example)
    return network(*args, **kwargs, **more)


def tensors_of(example: Any) -> list[Tensor]:
    """Return the tensors of an example, in the order of the arguments."""
    return [leaf for leaf in tree_leaves(example) if isinstance(leaf, Tensor)]


def placed(example: Any, device: torch.device | str, dtype: torch.dtype | None = None) -> Any:
    """Return an example on a device, its floating point numbers of one type; none = as they are."""
    return tree_map_only(
        Tensor, lambda tensor: tensor.to(device, dtype if tensor.is_floating_point() else None), example
    )


def input_spec(network: nn.Module, size: int) -> InputSpec:
    """Return what a network takes, by its first layer: an embedding takes tokens, a convolution images.

    Args:
        network: any.
        size: height and width of the images in pixels, or the number of tokens.
    """
    for module in network.modules():
        if isinstance(module, nn.Embedding):
            return InputSpec.of((size,), module.num_embeddings)
        if isinstance(module, nn.Conv2d):
            return InputSpec.of((module.in_channels, size, size))
    return InputSpec.of((3, size, size))


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
