"""What the width wing mixes into modules: they see the leading part of their own tensors, and smaller numbers.

The forward stays the library's own: where it reads `self.weight`, it gets the part that the running sub-network has,
a view of the whole. Nothing is masked, and switching copies nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from pliant.core.statistics import out_of_date
from pliant.core.surgery import demote, mix_in
from pliant.core.switch import Switch

__all__ = ["Number", "Part", "Sliced"]

_MISSING: Any = object()

Widths = tuple[float, ...]


@dataclass(frozen=True)
class Part:
    """How much of one dimension of a tensor runs.

    Attributes:
        dim: the dimension.
        parts: how many equal parts it consists of, the leading entries of each of which run.
        size: entries of each part.
        stage: the stage whose width counts.
        kept: how many entries of each part run, by width.
        centred: those in the middle of each part run, not the leading ones.
    """

    dim: int
    parts: int
    size: int
    stage: int
    kept: Mapping[float, int]
    centred: bool = False

    def of(self, tensor: Tensor, widths: Widths) -> Tensor:
        """Return what runs of a tensor: a view, or a copy where several parts lie apart."""
        kept = self.kept[widths[self.stage]]
        if kept == self.size:
            return tensor
        start = (self.size - kept) // 2 if self.centred else 0
        if self.parts == 1:
            return tensor.narrow(self.dim, start, kept)
        split = tensor.unflatten(self.dim, (self.parts, self.size)).narrow(self.dim + 1, start, kept)
        return split.flatten(self.dim, self.dim + 1)


@dataclass(frozen=True)
class Number:
    """A number that a library wrote down, by the width of a stage."""

    stage: int
    values: Mapping[float, Any]


class _Views(dict[tuple[str, Any], tuple[Tensor, int, Tensor]]):
    """Parts of tensors that were made before, each with its whole and where that lay. Copies of a module begin anew.

    The key is the name of the tensor with the widths of the stages that cut it, and not of all stages: so there are no
    more views of a tensor than its own stages have choices, however many sub-networks ran.
    """

    def __deepcopy__(self, memo: object) -> _Views:
        return _Views()

    def __reduce__(self) -> tuple[type[_Views], tuple[()]]:
        return _Views, ()


class Sliced(nn.Module):
    """A module whose leading channels run. `make_` gives it a property for everything that shrinks.

    A norm may have tensors of its own for every width of its stage in sub-networks other than the whole network: those
    of the children of its child `widths`, whose names are the widths (`bn1.widths.0_5.running_mean`). A checkpoint
    without them loads its leading parts there.
    """

    _pliant_switch: Switch
    _pliant_parts: dict[str, tuple[Part, ...]]
    _pliant_numbers: dict[str, Number]
    _pliant_cut_by: dict[str, Callable[[Widths], Any]]
    _pliant_own_stage: int
    _pliant_own_names: dict[float, str]
    _pliant_own_out_of_date: set[str]
    _pliant_views: _Views

    @staticmethod
    def make_(
        module: nn.Module, switch: Switch, parts: Mapping[str, Sequence[Part]], numbers: Mapping[str, Number]
    ) -> None:
        """Slice `module`, in place.

        Args:
            module: any.
            switch: knows the widths.
            parts: which parts run of its parameters and buffers, by name.
            numbers: its attributes that shrink with them.
        """
        state = {"parts": {name: tuple(found) for name, found in parts.items()}, "numbers": dict(numbers)}
        state["cut_by"] = {name: _widths_that_cut(found) for name, found in parts.items()}
        own = {"own_stage": 0, "own_names": {}, "own_out_of_date": set(), "views": _Views()}
        mix_in(module, _mixin(tuple(parts), tuple(numbers)), "Sliced", switch=switch, **state, **own)

    def add_own_(self, names: Collection[str], stage: int, widths: Sequence[float]) -> None:
        """Give a norm tensors of its own at `widths` of a stage; they start as the leading parts of the whole ones."""
        own, self._pliant_own_stage = nn.ModuleDict(), stage
        for width in widths:
            tensors = nn.Module()
            for name in names:
                whole = self._whole(name)
                part = self._own_copy(name, whole, width)
                if name in self._parameters:
                    tensors.register_parameter(name, nn.Parameter(part, whole.requires_grad))
                else:
                    tensors.register_buffer(name, part)
            own[repr(width).replace(".", "_")] = tensors  # names of modules have no dots
        self._pliant_own_names = dict(zip(widths, own, strict=True))
        # Whether these run depends on all stages: the whole network has those of the module itself.
        self._pliant_cut_by |= dict.fromkeys(names, tuple)
        self.add_module("widths", own)

    def bake(self, widths: Widths) -> None:
        """Become the plain module that runs at these widths, in place, over the same tensors or parts of them."""
        running = {name: self._running_tensor(name, widths) for name in self._pliant_parts}
        numbers = {name: number.values[widths[number.stage]] for name, number in self._pliant_numbers.items()}
        self._modules.pop("widths", None)
        demote(self, Sliced)
        for name, tensor in running.items():
            whole = self._parameters.get(name)
            if whole is None:
                self._buffers[name] = tensor
            elif tensor is not whole:
                is_own = isinstance(tensor, nn.Parameter)
                self._parameters[name] = tensor if is_own else nn.Parameter(tensor.detach(), whole.requires_grad)
        vars(self).update(numbers)

    def _running_tensor(self, name: str, widths: Widths) -> Any:
        # The whole network's own are those of the module itself.
        is_whole = not self._pliant_own_names or widths == self._pliant_switch.space.widths[-1]
        own = None if is_whole else self._pliant_own_names.get(widths[self._pliant_own_stage])
        if own is not None:
            if own in self._pliant_own_out_of_date:
                self._reset_own(own)
            tensors: Any = self._modules["widths"]._modules[own]  # type: ignore[union-attr]
            tensor = tensors._parameters.get(name, tensors._buffers.get(name))
            if tensor is not None:
                return tensor
        return self._leading_part(name, self._whole(name), widths)

    def reset_running_stats(self) -> None:
        """Reset the statistics of a batch norm: those of narrower widths when their next batch comes (`LateReset`)."""
        super().reset_running_stats()  # type: ignore[misc]
        self._pliant_own_out_of_date = set(self._pliant_own_names.values())
        self._pliant_switch.was_reset = self if self._pliant_own_names else None

    def _reset_own(self, own: str) -> None:
        if not self.training:
            raise out_of_date("forward", f"{type(self).__name__}.widths.{own}")
        self._pliant_own_out_of_date.discard(own)
        for name, statistics in self.get_submodule(f"widths.{own}").named_buffers():
            statistics.fill_(name == "running_var")

    def _whole(self, name: str) -> Any:
        whole = self._parameters.get(name, self._buffers.get(name, _MISSING))
        if whole is _MISSING:
            raise ValueError(
                f"the {name} of a {type(self).__name__} was taken away, as by pruning; pliant.extract a sub-network, "
                "and do that to it"
            )
        return whole

    @property
    def qconfig(self) -> object:
        """What torch's quantization marks every module with, before it passes over those of classes like this one."""
        raise AttributeError("qconfig")

    @qconfig.setter
    def qconfig(self, config: object) -> None:
        raise ValueError(
            f"a {type(self).__name__}, whose width changes, cannot be quantized; pliant.extract a sub-network, and "
            "quantize that, or pliant.export it with int8"
        )

    def _leading_part(self, name: str, whole: Any, widths: Widths) -> Any:
        if whole is None:  # a bias that was taken away
            return None
        for part in self._pliant_parts[name]:
            whole = part.of(whole, widths)
        return whole

    def _own_copy(self, name: str, whole: Tensor, width: float) -> Tensor:
        # Not a view: what a width has of its own changes apart from the whole.
        return self._leading_part(name, whole, (width,) * (self._pliant_own_stage + 1)).detach().clone()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for width, key in self._pliant_own_names.items():
            names = self.get_submodule(f"widths.{key}").state_dict()
            if not all(prefix + name in state_dict for name in names):
                continue  # a part of a checkpoint, whose other parts have these
            self._pliant_own_out_of_date.discard(key)
            for name in names:
                whole, own = state_dict.get(prefix + name), f"{prefix}widths.{key}.{name}"
                if whole is None or own in state_dict:
                    continue
                fits = whole.shape == self._whole(name).shape  # else torch refuses it, by name
                state_dict[own] = self._own_copy(name, whole, width) if fits else whole
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._pliant_views.clear()  # they would keep the memory of weights that move
        return super()._apply(*args, **kwargs)

    def __delattr__(self, name: str) -> None:
        if name in self._pliant_parts:
            raise ValueError(
                f"the {name} of a {type(self).__name__} is cut by its width, and cannot be taken away or parametrized; "
                "pliant.extract a sub-network, and do that to it"
            )
        super().__delattr__(name)


@cache
def _mixin(tensors: tuple[str, ...], numbers: tuple[str, ...]) -> type[Sliced]:
    """Return `Sliced` with one property for each name. Properties come before what an instance holds."""
    properties = {name: property(_tensor_getter(name), _setter(name)) for name in tensors}
    properties |= {name: property(_number_getter(name), _setter(name)) for name in numbers}
    # What `pickle` makes it again with.
    made_by = {"_pliant_made_by": (_mixin, (tensors, numbers))}
    return type("Sliced", (Sliced,), {"__module__": __name__, "__annotations__": {}, **made_by, **properties})


def _setter(name: str) -> Callable[[Any, Any], None]:
    def refuse(module: Any, value: Any) -> None:
        raise ValueError(
            f"the {name} of a {type(module).__name__} changes with the width, and cannot be set; pliant.extract a "
            "sub-network, and set that of it"
        )

    return refuse


def _tensor_getter(name: str) -> Callable[[Any], Any]:
    def get(module: Any) -> Any:
        widths = module._pliant_switch.widths
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return module._running_tensor(name, widths)
        # Making a view takes longer than small layers can spare; one that was made is good as long as its whole is.
        whole = module._whole(name)
        key = name, module._pliant_cut_by[name](widths)
        known = module._pliant_views.get(key)
        if known is not None and known[0] is whole and known[1] == whole.data_ptr():
            return known[2]
        running = module._running_tensor(name, widths)
        # Nothing else is kept: a copy, or a tensor of a width's own, would not see the whole change.
        if type(running) is Tensor and running._base is whole:
            module._pliant_views[key] = whole, whole.data_ptr(), running
        return running

    return get


def _widths_that_cut(parts: Sequence[Part]) -> Callable[[Widths], Any]:
    """Return what picks, from the widths of all stages, those on which the parts of one tensor depend."""
    # What no part cuts is there as a whole, or by itself for every width: no view is made of it.
    return itemgetter(*dict.fromkeys(part.stage for part in parts)) if parts else itemgetter(0)


def _number_getter(name: str) -> Callable[[Any], Any]:
    def get(module: Any) -> Any:
        number = module._pliant_numbers[name]
        return number.values[module._pliant_switch.widths[number.stage]]

    return get
