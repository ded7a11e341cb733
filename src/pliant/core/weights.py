"""Named tensors: which are tied to others, and which do not fit a model."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from torch import Size, Tensor, nn

__all__ = ["CheckpointError", "first_three", "misfits", "shapes", "tied_names"]


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
