"""Change a module by path; mix a class into an instance in place; copy a module without its tensors, or its parts."""

from __future__ import annotations

import copy
import copyreg
import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import FunctionType, MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from pliant.core.errors import first_line

__all__ = [
    "demote",
    "identity_for",
    "is_mixed",
    "is_sharded",
    "merged",
    "mix_in",
    "mixins_of",
    "move_hooks",
    "names_of",
    "own_copy",
    "own_forward",
    "own_parts_",
    "refuse_fixed",
    "refuse_replaced_forward",
    "refuse_replaced_forwards",
    "refuse_unfit",
    "remove_child",
    "replace",
    "shared_copy",
    "takes",
]

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def replace(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put `module` where `path` points."""
    parent, _, name = path.rpartition(".")
    setattr(root.get_submodule(parent), name, module)


def takes(module: nn.Module) -> list[str]:
    """Return the names of what the forward of `module` takes; `*args` and `**kwargs` are not among them."""
    return [p.name for p in _parameters(module.forward) if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except ValueError:  # it is not written in Python
        return []


def remove_child(root: nn.Module, path: str) -> None:
    """Take a child out of its `nn.Sequential` or `nn.ModuleList`; those behind it take over the names before them.

    Out of a module that calls its children by name nothing can be taken: an identity stays in its place.
    """
    parent, _, name = path.rpartition(".")
    container = root.get_submodule(parent)
    if not isinstance(container, nn.Sequential | nn.ModuleList):
        replace(root, path, identity_for(container.get_submodule(name)))
        return
    # Not `del container[i]`: that renames to 0, 1, ..., which loses names such as `encoder_layer_3`.
    names = list(container._modules)
    kept = [child for key, child in container._modules.items() if key != name]
    container._modules.clear()
    container._modules.update(zip(names, kept, strict=False))


def identity_for(block: nn.Module) -> nn.Module:
    """Return a module of torch's own that takes what `block` takes and gives back the first of it."""
    parameters = _parameters(block.forward)
    if len(parameters) <= 1:
        return nn.Identity()
    # An nn.Identity takes one argument; callers of this block may pass a mask, say, too.
    graph, stars = fx.Graph(), {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    inputs = [
        graph.placeholder(f"{stars[p.kind]}{p.name}")
        if p.kind in stars
        else graph.placeholder(p.name, default_value=inspect.Signature.empty if number == 0 else None)
        for number, p in enumerate(parameters)
    ]
    graph.output(inputs[0])
    return fx.GraphModule(nn.Module(), graph, class_name="Identity")


@cache
def _mixed(mixin: type[nn.Module], base: type[nn.Module], prefix: str) -> type:
    """One class for every (mixin, base), so that two instances mixed alike have the same type."""
    # A mixin without slots of its own leaves the instance's layout as it is, which is what allows the swap.
    namespace: dict[str, object] = {"__module__": base.__module__, "__doc__": base.__doc__}
    namespace |= {"_pliant_mixed": (mixin, prefix), "__reduce_ex__": _reduce}
    if "forward" in vars(mixin):
        namespace["forward"] = _forward(mixin, base)
    return _metaclass(type(base))(prefix + base.__name__, (mixin, base), namespace)


@cache
def _metaclass(of_base: type[type]) -> type[type]:
    """Return a metaclass for mixed classes: calling one makes what its plain class makes.

    Libraries make new layers of the class of an old one (`type(layer)(8, 8)`), as peft does.
    """
    return type("Mixed", (of_base,), {"__call__": _plain_instance})


def _plain_instance(kind: type, *args: Any, **kwargs: Any) -> nn.Module:
    """Make an instance of the class that something was mixed into; what was mixed in needs the state of `mix_in`."""
    plain: Any = next(base for base in kind.__mro__ if "_pliant_mixed" in vars(base))
    while "_pliant_mixed" in vars(plain):
        plain = plain.__bases__[1]
    return plain(*args, **kwargs)


def _reduce(module: nn.Module, protocol: int) -> tuple[Any, ...]:
    """Say to `pickle` and `copy` how a module of a mixed class is made again: no file has such a class by name."""
    layers: list[tuple[Any, str]] = []
    mixed = plain = next(kind for kind in type(module).__mro__ if "_pliant_mixed" in vars(kind))
    while "_pliant_mixed" in vars(plain):
        mixin, prefix = vars(plain)["_pliant_mixed"]
        layers.append((vars(mixin).get("_pliant_made_by", mixin), prefix))
        plain = plain.__bases__[1]
    # Older protocols make an instance in another way.
    function, arguments, *state = plain.__reduce_ex__(module, max(protocol, 2))  # type: ignore[call-arg, misc]
    if mixed is not type(module):  # another library has put a class in front, of which nothing is known
        return function, arguments, *state
    if function is not copyreg.__newobj__:  # type: ignore[attr-defined]
        raise ValueError(
            f"a {plain.__name__} is copied and pickled in a way of its own, which loses that it is adapted; use "
            "pliant.save, or copy it before pliant.adapt_"
        )
    return _remade, (plain, tuple(reversed(layers)), *arguments[1:]), *state


def _remade(plain: type[nn.Module], layers: Iterable[tuple[Any, str]], *arguments: Any) -> nn.Module:
    """Make an empty module of a mixed class; see `_reduce`."""
    kind = plain
    for mixin, prefix in layers:
        if isinstance(mixin, tuple):
            make, of = mixin
            mixin = make(*of)
        kind = _mixed(mixin, kind, prefix)
    return plain.__new__(kind, *arguments)


def _forward(mixin: type[nn.Module], base: type[nn.Module]) -> FunctionType:
    """Return the mixin's forward with the signature of the base's, and what the mixin adds to it by keyword.

    Libraries look at the signature to find out which inputs a network takes.
    """
    own = mixin.forward
    assert isinstance(own, FunctionType)
    forward = FunctionType(own.__code__, own.__globals__, own.__name__, own.__defaults__, own.__closure__)
    forward.__kwdefaults__, forward.__doc__ = own.__kwdefaults__, own.__doc__
    of_base = [parameter for parameter in _parameters(base.forward) if parameter.kind is not parameter.VAR_KEYWORD]
    if of_base:
        added = [parameter for parameter in _parameters(own) if parameter.kind is parameter.KEYWORD_ONLY]
        signature = inspect.signature(base.forward)
        rest = list(signature.parameters.values())[len(of_base) :]
        vars(forward)["__signature__"] = signature.replace(parameters=[*of_base, *added, *rest])
    return forward


def mix_in(module: nn.Module, mixin: type[nn.Module], prefix: str, **state: object) -> None:
    """Give `module` the methods of `mixin` in front of its own, in place: same parameters, same keys.

    Args:
        module: changes its class to a subclass of it.
        mixin: a class without `__init__`.
        prefix: put before the name of the module's class.
        **state: plain attributes that the mixin needs; it finds them, and annotates them, under names that begin with
            `_pliant_`, which no network has itself.
    """
    module.__class__ = _mixed(mixin, type(module), prefix)
    vars(module).update({f"_pliant_{name}": value for name, value in state.items()})


def demote(module: nn.Module, mixin: type[nn.Module]) -> None:
    """Undo `mix_in`, the attributes included.

    Raises:
        ValueError: a library has changed the class since, in a way that cannot be kept.
    """
    outermost = mixed = type(module)
    if parametrize.is_parametrized(module) and not _is_mixed(outermost, mixin):
        # torch.nn.utils.parametrize has put a class in front, which holds what computes the tensors.
        mixed = outermost.__bases__[0]
    if not _is_mixed(mixed, mixin):
        raise ValueError(
            f"the class of a {outermost.__name__} was changed by another library after pliant.adapt_, so that its "
            "plain class cannot be given back; extract sub-networks before that"
        )
    plain: Any = mixed.__bases__[1]
    if mixed is not outermost:
        kept = {name: value for name, value in vars(outermost).items() if name not in ("__dict__", "__weakref__")}
        plain = type(f"Parametrized{plain.__name__}", (plain,), kept)
    module.__class__ = plain
    for name in mixin.__annotations__:
        vars(module).pop(name, None)


def move_hooks(module: nn.Module, to: nn.Module | None) -> None:
    """Take the forward and backward hooks of a module away, and give them to another one if there is one."""
    for name, hooks in vars(module).items():
        if name.startswith(("_forward_", "_backward_")) and isinstance(hooks, dict):
            if to is not None:
                vars(to)[name].update(hooks)
                vars(to)["_is_full_backward_hook"] = vars(module).get("_is_full_backward_hook")
            vars(module)[name] = type(hooks)()


def is_mixed(module: nn.Module) -> bool:
    """Whether something was mixed into a module, maybe behind a class that another library has put in front."""
    return any("_pliant_mixed" in vars(kind) for kind in type(module).__mro__)


def mixins_of(module: nn.Module) -> frozenset[str]:
    """Return the names of the classes that were mixed into a module."""
    return frozenset(
        vars(kind)["_pliant_mixed"][0].__name__ for kind in type(module).__mro__ if "_pliant_mixed" in vars(kind)
    )


def _is_mixed(kind: type, mixin: type[nn.Module]) -> bool:
    """Whether a class is what `mix_in` made of a mixin, or of one derived from it, and of another class."""
    return len(kind.__bases__) == 2 and issubclass(kind.__bases__[0], mixin)


def shared_copy(module: ModuleT) -> ModuleT:
    """Copy a module tree whose parameters and buffers stay the same tensors.

    Raises:
        ValueError: the tensors are parts that FSDP keeps in several processes.
    """
    if any(is_sharded(part) for part in module.modules()):
        raise ValueError(
            f"this {type(module).__name__} is sharded by fully_shard, which allows no copy of it: take its full state "
            "dict, and extract from a model that has loaded it"
        )
    return own_copy(module, {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())})


def own_copy(module: ModuleT, memo: dict[int, Any]) -> ModuleT:
    """Copy a module tree; what is in `memo` by `id`, as for `copy.deepcopy`, is taken from there.

    Raises:
        ValueError: something in it keeps a tensor of the last pass, which torch does not copy while it has a graph.
    """
    for part in module.modules():  # what a module itself keeps can be helped
        kept = (value for value in vars(part).values() if isinstance(value, Tensor) and not value.is_leaf)
        memo |= {id(tensor): tensor.detach().clone() for tensor in kept}
    try:
        return copy.deepcopy(module, memo)
    except RuntimeError as error:
        raise ValueError(
            f"this {type(module).__name__} cannot be copied, as a hook or an object within it keeps a tensor of the "
            f"last pass: {first_line(error)}; clear it, or remove the hook"
        ) from error


def own_parts_(network: nn.Module, made: dict[Any, Tensor]) -> None:
    """Give a network tensors of its own where it has parts of larger ones, in place; nothing else is copied.

    Args:
        network: no other has its modules.
        made: what earlier calls have copied, by where it lay: networks that shared a part share its copy.
    """
    for module in network.modules():
        kinds: list[dict[str, Any]] = [module._parameters, module._buffers]
        for tensors in kinds:
            for name, tensor in tensors.items():
                if tensor is not None and _is_part(tensor):
                    where = tensor.untyped_storage(), tensor.storage_offset()
                    place = (*where, tensor.shape, tensor.stride(), tensor.dtype)
                    if place not in made:
                        made[place] = copy.deepcopy(tensor) if isinstance(tensor, nn.Parameter) else tensor.clone()
                    tensors[name] = made[place]


def _is_part(tensor: Tensor) -> bool:
    return not is_traceable_wrapper_subclass(tensor) and tensor.untyped_storage().nbytes() > tensor.nbytes


def is_sharded(module: nn.Module) -> bool:
    """Whether `fully_shard` was called on a module itself."""
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")  # who has not imported it has sharded nothing
    return fsdp is not None and isinstance(module, fsdp.FSDPModule)


def names_of(mixin: type[nn.Module], *children: str) -> set[str]:
    """Return the names that a module gets with `mixin` and has not as any other module."""
    return {*children, *(name for name in {*vars(mixin), *mixin.__annotations__} if not hasattr(nn.Module, name))}


def merged(*added: Mapping[str, Collection[str]]) -> dict[str, set[str]]:
    """Return names by path, of several such mappings together."""
    together: dict[str, set[str]] = {}
    for names_by_path in added:
        for path, names in names_by_path.items():
            together.setdefault(path, set()).update(names)
    return together


def refuse_fixed(root: nn.Module) -> None:
    """Refuse a network whose modules cannot be changed any more.

    Raises:
        ValueError: it is sharded, traced or scripted.
    """
    if any(is_sharded(module) for module in root.modules()):
        raise ValueError(f"adapt_: this {type(root).__name__} is sharded by fully_shard; adapt it first, then shard it")
    if isinstance(root, torch.jit.ScriptModule):
        raise ValueError(
            f"adapt_: got a {type(root).__name__}, a program whose modules cannot be changed; adapt the network, and "
            "trace or script what pliant.extract gives"
        )


def refuse_unfit(root: nn.Module, changed: Mapping[str, Collection[str]], reserved: Collection[str] = ()) -> None:
    """Refuse what could not be changed without harm.

    Args:
        root: the model.
        changed: the paths of the modules that are to be changed, each with the names that are added to it.
        reserved: names of arguments that the model's forward is to take.

    Raises:
        ValueError: says what, and where.
    """
    for name in takes(root):
        if name in reserved:
            raise ValueError(f"the forward of this {type(root).__name__} has an argument {name!r} already; rename it")
    for path, names in {"": (), **changed}.items():
        module = root.get_submodule(path)
        refuse_replaced_forward(module, path, "adapt_", "would run in place of pliant's, and nothing would be skipped")
        taken = next((name for name in sorted(names) if _has(module, name)), None)
        if taken is not None:
            raise ValueError(
                f"adapt_: {_where(module, path)}, has {taken!r} already, a name that pliant adds; rename it"
            )
        computed = next((name for name, value in vars(module).items() if isinstance(value, Tensor)), None)
        if computed is not None:
            raise ValueError(
                f"adapt_: the {computed} of {_where(module, path)}, is computed by a hook, as by pruning or the old "
                "weight_norm; make it permanent first (torch.nn.utils.prune.remove, remove_weight_norm)"
            )
        if parametrize.is_parametrized(module):
            raise ValueError(
                f"{path or type(root).__name__!r} is parametrized, and removing that later would undo the adaptation; "
                "adapt first, then parametrize"
            )
    _refuse_shared(root, changed)


@contextmanager
def own_forward(model: nn.Module) -> Iterator[None]:
    """Let a model have its own forward in this block, where accelerate has put mixed precision around it.

    What is copied or saved is the network, and not the precision in which a training runs it. Hooks of accelerate,
    which move weights, are no such thing and stay.
    """
    attributes = vars(model)
    names = ("forward", "_original_forward") if _runs_its_own(model) else ()
    taken = {name: attributes.pop(name) for name in names if name in attributes}
    try:
        yield
    finally:
        attributes.update(taken)


def _runs_its_own(model: nn.Module) -> bool:
    """Whether the forward of an instance is its class's, bare as accelerate's `unwrap_model` leaves it or wrapped."""
    forward = vars(model).get("forward")
    if not isinstance(forward, MethodType) or forward.__self__ is not model or "_hf_hook" in vars(model):
        return False
    wrapped = inspect.unwrap(forward.__func__) if "_original_forward" in vars(model) else forward.__func__
    return wrapped is type(model).forward


def refuse_replaced_forwards(root: nn.Module, caller: str, why: str) -> None:
    """Refuse a network in which the `forward` of any module was replaced on the instance.

    Args:
        root: the network.
        caller: who cannot do with it.
        why: ends the sentence "it ...".

    Raises:
        ValueError: names the first one.
    """
    for path, module in root.named_modules():
        refuse_replaced_forward(module, path, caller, why)


def refuse_replaced_forward(module: nn.Module, path: str, caller: str, why: str) -> None:
    """Refuse a module whose `forward` was replaced on the instance; `why` ends "it ...".

    Raises:
        ValueError: names the module, and how hooks are removed.
    """
    if "forward" in vars(module):
        raise ValueError(
            f"{caller}: the forward of {_where(module, path)}, was replaced on the instance, as hooks of accelerate "
            f"do; it {why}; remove the hook first (accelerate.hooks.remove_hook_from_module) and add it again "
            "afterwards"
        )


def _where(module: nn.Module, path: str) -> str:
    return f"{f'module {path!r}' if path else 'the model'}, a {type(module).__name__}"


def _has(module: nn.Module, name: str) -> bool:
    """Whether a module has an attribute, a tensor or a child of this name, or its class does."""
    own = (vars(module), module._parameters, module._buffers, module._modules)
    kinds = (kind for kind in type(module).__mro__ if kind not in nn.Module.__mro__)
    return any(name in names for names in own) or any(name in vars(kind) for kind in kinds)


def _refuse_shared(root: nn.Module, changed: Collection[str]) -> None:
    """Refuse blocks or norms that the model uses in more than one place, or parameters of theirs."""
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
