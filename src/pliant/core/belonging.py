"""Whether every part of an adapted model still follows its switch: found out before a wrong answer is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from torch import nn

from pliant.core.surgery import mixins_of, refuse_replaced_forward
from pliant.core.switch import Switch

__all__ = ["Seen", "followers_of", "is_unchanged", "look", "refuse_moved", "refuse_strangers"]

# How many objects a replaced `forward` may hold that are searched for the one before.
MOST_SEARCHED = 1000

# The mixin whose tensors and numbers change with the width.
SLICED = "Sliced"

# What stood where: the parent, the name of the child in it, the child, its class and the forward of the instance.
Seen = list[tuple[nn.Module, str, nn.Module, type, Any]]


def look(model: nn.Module, followers: Iterable[str]) -> Seen:
    """Write down the modules on the way to every follower, for `is_unchanged`."""
    paths = dict.fromkeys(path[:end] for path in followers for end in _ends(path))
    seen: Seen = []
    for path in paths:
        prefix, _ = _reached(model, path)
        if prefix == path:
            parent, _, name = path.rpartition(".")
            module = model.get_submodule(path)
            seen.append((model.get_submodule(parent), name, module, type(module), vars(module).get("forward")))
    return seen


def _ends(path: str) -> Iterator[int]:
    return (end for end in range(1, len(path) + 1) if end == len(path) or path[end] == ".")


def is_unchanged(seen: Seen) -> bool:
    """Whether the same modules stand where they stood, of the same class and with the same forward. Asked in a pass."""
    for parent, name, module, kind, forward in seen:
        if parent._modules.get(name) is not module:
            return False
        if module.__class__ is not kind or module.__dict__.get("forward") is not forward:
            return False
    return True


def followers_of(model: nn.Module) -> dict[str, frozenset[str]]:
    """Return the path of every module below `model` that was adapted, with the names of what was mixed into it."""
    found = ((path, _marks_of(module)) for path, module in model.named_modules() if path)
    return {path: marks for path, marks in found if marks}


def _marks_of(module: nn.Module) -> frozenset[str]:
    """Return what was mixed into a module, and for which place in the model."""
    state = vars(module)
    places = (f"{name}={state[name]}" for name in ("_pliant_stage", "_pliant_number") if name in state)
    return mixins_of(module) | frozenset(places)


def refuse_strangers(model: nn.Module, followers: Mapping[str, frozenset[str]], switch: Switch, caller: str) -> None:
    """Refuse a model of which a part was replaced, removed, or taken from another model after `adapt_`.

    A wrapper around the part, which still has it inside, is let pass; so is a new `forward` that calls the one before.

    Args:
        model: an adapted model.
        followers: what `followers_of` said when it was adapted.
        switch: the model's.
        caller: who needs to know.

    Raises:
        ValueError: names the first such part.
    """
    for path, mixins in followers.items():
        parts = list(_parts_at(model, path))
        part = next((part for part in parts if mixins == _marks_of(part)), None)
        if part is None:
            what = f"replaced after pliant.adapt_ by a {type(parts[0]).__name__}" if parts else "removed after adapt_"
            adapted = parts and mixins_of(parts[0])
            raise ValueError(
                f"{caller}: module {path!r} was {what}, which follows "
                f"{'the sub-network as in another place' if adapted else 'no sub-network'}; convert or replace modules "
                "first, then adapt the model"
            )
        if part is not parts[0] and SLICED in mixins and not _parameters(parts[0]) <= _parameters(part):
            raise ValueError(
                f"{caller}: module {path!r} was wrapped by a {type(parts[0]).__name__} with weights of its own, which "
                "do not follow the width; merge them into the module, or extract a sub-network and wrap its modules"
            )
        if any(isinstance(value, Switch) and value is not switch for value in vars(part).values()):
            raise ValueError(
                f"{caller}: module {path!r} is part of another adapted model, and follows that one's sub-network; put "
                "parts of a plain model in, then adapt it"
            )
        _refuse_bypass(part, path, caller)
    _refuse_bypass(model, "", caller)


def refuse_moved(model: nn.Module, followers: Mapping[str, frozenset[str]], caller: str) -> None:
    """Refuse to make plain a model of which a part now stands elsewhere, or whose `forward` was replaced.

    Args:
        model: of which `refuse_strangers` has nothing to say.
        followers: what `followers_of` said when it was adapted.
        caller: who makes it plain.

    Raises:
        ValueError: names the first such part.
    """
    why = "calls what is adapted, and would not in a plain network"
    refuse_replaced_forward(model, "", caller, why)
    for path, mixins in followers.items():
        prefix, _ = _reached(model, path)
        part = model.get_submodule(prefix)
        if prefix != path or mixins != _marks_of(part):
            raise ValueError(
                f"{caller}: module {path!r} is inside of a {type(part).__name__} at {prefix!r} now; take the wrapper "
                "off first (peft: merge_and_unload), and put it around what comes back"
            )
        refuse_replaced_forward(part, path, caller, why)


def _parameters(module: nn.Module) -> set[int]:
    return {id(parameter) for parameter in module.parameters()}


def _parts_at(model: nn.Module, path: str) -> Iterator[nn.Module]:
    """Yield what stands at a path, and what it has inside; a wrapper on the way makes the path longer."""
    prefix, rest = _reached(model, path)
    for within, module in model.get_submodule(prefix).named_modules():
        if not rest or f".{within}".endswith(f".{rest}"):
            yield module


def _reached(model: nn.Module, path: str) -> tuple[str, str]:
    """Divide a path into the part that there is, and the rest."""
    names = path.split(".")
    module = model
    for depth, name in enumerate(names):
        child = module._modules.get(name)
        if child is None:
            return ".".join(names[:depth]), ".".join(names[depth:])
        module = child
    return path, ""


def _refuse_bypass(module: nn.Module, path: str, caller: str) -> None:
    if "forward" in vars(module) and not _calls_its_own(module):
        why = "calls no longer the one that pliant.adapt_ made, so that the module follows no sub-network"
        refuse_replaced_forward(module, path, caller, why)


def _calls_its_own(module: nn.Module) -> bool:
    """Whether the `forward` of an instance can reach that of its class, as the hooks of libraries do.

    What a function calls stands in no attribute. So everything is searched that it, and the instance, hold.
    """
    waiting: list[Any] = [value for value in vars(module).values() if callable(value)]
    seen: set[int] = set()
    while waiting and len(seen) < MOST_SEARCHED:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, MethodType) and item.__self__ is module and item.__func__ is type(module).forward:
            return True
        waiting += _held_by(item)
    return False


def _held_by(item: Any) -> list[Any]:
    """What a function, a partial function, a container or an object holds; modules are not searched."""
    if isinstance(item, partial):
        return [item.func, *item.args, *item.keywords.values()]
    if isinstance(item, MethodType):
        return [item.__func__, item.__self__]
    if isinstance(item, FunctionType):
        cells = [cell.cell_contents for cell in item.__closure__ or () if _is_filled(cell)]
        return [*cells, *(item.__defaults__ or ()), *vars(item).values()]
    if isinstance(item, list | tuple):
        return list(item)
    if isinstance(item, dict):
        return list(item.values())
    if isinstance(item, nn.Module | type):
        return []
    return list(getattr(item, "__dict__", {}).values())


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
