"""Change a module by path; mix a class into an instance in place; copy a module without its tensors."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import cache
from typing import TypeVar

from torch import nn

__all__ = ["demote", "mix_in", "refuse_shared", "remove_child", "replace", "shared_copy"]

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def replace(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put `module` where `path` points."""
    parent, _, name = path.rpartition(".")
    setattr(root.get_submodule(parent), name, module)


def remove_child(root: nn.Module, path: str) -> None:
    """Take a child out of its `nn.Sequential` or `nn.ModuleList`; those behind it take over the names before them.

    Out of a module that calls its children by name nothing can be taken: an identity stays in its place.
    """
    parent, _, name = path.rpartition(".")
    container = root.get_submodule(parent)
    if not isinstance(container, nn.Sequential | nn.ModuleList):
        replace(root, path, nn.Identity())
        return
    # Not `del container[i]`: that renames to 0, 1, ..., which loses names such as `encoder_layer_3`.
    names = list(container._modules)
    kept = [child for key, child in container._modules.items() if key != name]
    container._modules.clear()
    container._modules.update(zip(names, kept, strict=False))


@cache
def _mixed(mixin: type, base: type, prefix: str) -> type:
    """One class for every (mixin, base), so that two instances mixed alike have the same type."""
    # A mixin without slots of its own leaves the instance's layout as it is, which is what allows the swap.
    return type(prefix + base.__name__, (mixin, base), {"__module__": base.__module__, "__doc__": base.__doc__})


def mix_in(module: nn.Module, mixin: type[nn.Module], prefix: str, **state: object) -> None:
    """Give `module` the methods of `mixin` in front of its own, in place: same parameters, same keys.

    Args:
        module: changes its class to a subclass of it.
        mixin: a class without `__init__`.
        prefix: put before the name of the module's class.
        **state: plain attributes that the mixin needs, as it annotates them.
    """
    module.__class__ = _mixed(mixin, type(module), prefix)
    vars(module).update(state)


def demote(module: nn.Module, mixin: type[nn.Module]) -> None:
    """Undo `mix_in`, the attributes included."""
    order = type(module).__mro__
    assert order[1] is mixin, f"{order[0].__name__} was not made by mixing in {mixin.__name__}"
    module.__class__ = order[2]
    for name in mixin.__annotations__:
        vars(module).pop(name, None)


def shared_copy(module: ModuleT) -> ModuleT:
    """Copy a module tree whose parameters and buffers stay the same tensors."""
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


def refuse_shared(root: nn.Module, paths: Iterable[str]) -> None:
    """Refuse blocks or norms that the model uses in more than one place.

    Raises:
        ValueError: names two paths of one module, or two parameters that are one tensor.
    """
    changed = set(paths)
    seen_modules: dict[int, str] = {}
    for path, module in root.named_modules(remove_duplicate=False):
        first = seen_modules.setdefault(id(module), path)
        if first != path and (first in changed or path in changed):
            raise ValueError(f"{first!r} and {path!r} are one shared module: a shared block cannot be made skippable")
    seen_tensors: dict[int, str] = {}
    for path, parameter in root.named_parameters(remove_duplicate=False):
        first = seen_tensors.setdefault(id(parameter), path)
        if first != path and any(name.startswith(f"{root_}.") for name in (first, path) for root_ in changed):
            raise ValueError(f"{first!r} and {path!r} are tied weights: a tied block cannot be made skippable")
