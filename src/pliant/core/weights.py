"""Named tensors: which are tied to others, which do not fit a model, and a model that gets those of another."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Size, Tensor, nn

__all__ = [
    "CheckpointError",
    "first_three",
    "lend_",
    "misfits",
    "shapes",
    "take_dtypes_",
    "tied_names",
    "unsaved_dtypes",
]


class CheckpointError(ValueError):
    """A saved network that cannot be used; the message says which file and why."""


def shapes(tensors: Mapping[str, Tensor], without: Container[str] = ()) -> dict[str, Size]:
    """Return the shapes of tensors by name, except of the names in `without`."""
    return {name: tensor.shape for name, tensor in tensors.items() if name not in without}


def tied_names(model: nn.Module) -> dict[str, str]:
    """Return the names of tensors that are another one by an earlier name, with that name."""
    first: dict[int, str] = {}
    names = {name: first.setdefault(id(tensor), name) for name, tensor in model.state_dict(keep_vars=True).items()}
    return {name: earlier for name, earlier in names.items() if earlier != name}


def misfits(expected: Mapping[str, Size], given: Mapping[str, Size]) -> list[str]:
    """Say of each name that is missing, unknown or of another shape what is wrong with it."""
    return [
        *(f"{name} is missing" for name in expected if name not in given),
        *(f"{name} is unknown" for name in given if name not in expected),
        *(
            f"{name} is {list(given[name])}, expected {list(shape)}"
            for name, shape in expected.items()
            if name in given and given[name] != shape
        ),
    ]


def first_three(problems: Sequence[str]) -> str:
    """Put the first three of many problems into one line."""
    return "; ".join(problems[:3]) + (f" and {len(problems) - 3} more" if len(problems) > 3 else "")


def _unsaved_buffers(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """The buffers that are in no state dict: the full name, the module, the name in it, and the tensor."""
    for path, module in model.named_modules():
        for name, tensor in module._buffers.items():
            if tensor is not None and name in module._non_persistent_buffers_set:
                yield f"{path}.{name}" if path else name, module, name, tensor


def unsaved_dtypes(model: nn.Module) -> dict[str, str]:
    """Return the types of floating point buffers that are in no state dict, where they are not float32."""
    return {
        full: str(tensor.dtype).removeprefix("torch.")
        for full, _, _, tensor in _unsaved_buffers(model)
        if tensor.is_floating_point() and tensor.dtype != torch.float32
    }


def take_dtypes_(model: nn.Module, tensors: Mapping[str, Tensor], unsaved: Mapping[str, str]) -> None:
    """Give the floating point tensors of a model the types of others, in place; the values stay.

    Args:
        model: any.
        tensors: of a state dict.
        unsaved: the types of buffers that are in none, as `unsaved_dtypes` returns them.
    """
    for name, tensor in model.state_dict(keep_vars=True).items():
        given = tensors.get(name)
        if given is not None and given.dtype != tensor.dtype and given.is_floating_point():
            tensor.data = tensor.data.to(given.dtype)
    for full, _, _, tensor in _unsaved_buffers(model):
        if full in unsaved:
            tensor.data = tensor.data.to(getattr(torch, unsaved[full]))


def lend_(network: nn.Module, tensors: Mapping[str, Tensor], owner: nn.Module) -> bool:
    """Give a network the parameters of another in the same memory, and copies of its buffers, in place.

    Args:
        network: was perhaps made without memory for its weights.
        tensors: the parameters and buffers of a state dict, by name.
        owner: whose they are; buffers that are in no state dict go to the devices of its own.

    Returns:
        Whether the network has values everywhere now.
    """
    parameters: dict[int, nn.Parameter] = {}
    for path, module in network.named_modules():
        for kind in (module._parameters, module._buffers):
            tensors_of_kind: dict[str, Any] = kind
            for name, tensor in tensors_of_kind.items():
                given = tensors.get(f"{path}.{name}" if path else name)
                if tensor is None or given is None:
                    continue
                if kind is module._buffers:
                    tensors_of_kind[name] = given.clone()
                else:  # tied ones stay one parameter
                    made = nn.Parameter(given.detach(), requires_grad=False)
                    tensors_of_kind[name] = parameters.setdefault(id(tensor), made)
    devices = {full: tensor.device for full, _, _, tensor in _unsaved_buffers(owner)}
    for full, module, name, tensor in _unsaved_buffers(network):
        module._buffers[name] = tensor.to(devices.get(full, tensor.device))
    values = (value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor))
    return not any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers(), *values))
