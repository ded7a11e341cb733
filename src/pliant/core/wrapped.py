"""Refuse a network that torch has wrapped, and say what to pass instead."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

__all__ = ["refuse_wrapped"]

# Where torch.compile keeps the module that it was given; its class is in a package that takes long to import.
_COMPILED_FROM = "_orig_mod"


def refuse_wrapped(model: nn.Module, caller: str) -> None:
    """Let nothing pass that runs a network instead of being one; `caller` is who was given it.

    Raises:
        ValueError: `model` is of `DistributedDataParallel`, `DataParallel`, `torch.compile` or `AveragedModel`;
            names the attribute under which the network itself is.
    """
    inner, path = model, ""
    while name := _name_within(inner):
        inner, path = inner.get_submodule(name), f"{path}.{name}"
    if not path:
        return
    if path == f".{_COMPILED_FROM}":
        raise ValueError(
            f"{caller}: got a compiled {type(inner).__name__}, expected the network itself: pass the model that "
            f"torch.compile was given, which is its {path}"
        )
    kind = type(model).__name__
    article = "an" if kind[0] in "AEIOU" else "a"
    raise ValueError(
        f"{caller}: got {article} {kind} around a network of class {type(inner).__name__}, expected the "
        f"network itself: pass its {path}"
    )


def _name_within(model: nn.Module) -> str | None:
    """Under which name `model` holds the network that it wraps; none for a network itself."""
    if isinstance(model, DataParallel | DistributedDataParallel | AveragedModel):
        return "module"
    if type(model).__name__ == "FullyShardedDataParallel":  # the first FSDP, whose package takes long to import
        return "_fsdp_wrapped_module"
    return _COMPILED_FROM if isinstance(model._modules.get(_COMPILED_FROM), nn.Module) else None
