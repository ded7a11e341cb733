"""`AdaptiveModule`: what `adapt_` mixes into a model's own class."""

from __future__ import annotations

import copy
import dataclasses
import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, fx, nn

from pliant.core.anatomy import Anatomy
from pliant.core.belonging import is_unchanged, look, refuse_moved, refuse_strangers
from pliant.core.config import Config
from pliant.core.inputs import logits_of
from pliant.core.leaving import Decide, Left
from pliant.core.sequence import MOST_LISTED, SubNets
from pliant.core.statistics import refuse_out_of_date
from pliant.core.stream import Mask, mask_in
from pliant.core.subnet import SubNet, SubNetSpace
from pliant.core.surgery import demote, is_mixed, mix_in, mixins_of
from pliant.core.switch import Switch
from pliant.core.uncompiled import uncompiled
from pliant.core.wrapped import refuse_wrapped

__all__ = [
    "Adaptation",
    "AdaptiveModule",
    "StageEnd",
    "as_adaptive",
    "every_subnet",
    "num_classes_of",
    "refuse_replaced",
    "to_make_plain",
]


@dataclass(frozen=True)
class Adaptation:
    """What an adapted model knows of itself: how it was read, with which configs, and its switch.

    Attributes:
        anatomy: what the reader found.
        configs: what it was adapted with.
        switch: knows the running sub-network.
        example: what `spec_of_example` says of the example that it was adapted with; none = there was no example.
        followers: what `core.belonging.followers_of` said of the model.
        size: pixels of a side, or tokens, of the example; none = there was no example, or not one tensor.
        masks: what `mask_arguments` said of the model: where its forward takes a padding mask.
    """

    anatomy: Anatomy
    configs: tuple[Config, ...]
    switch: Switch
    example: Any = None
    followers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    size: int | None = None
    masks: Mapping[str, int] = field(default_factory=dict)


class AdaptiveModule(nn.Module):
    """A model with sub-networks. Made by `pliant.adapt_`, never by hand; the model keeps its class and keys."""

    _pliant_adaptation: Adaptation

    @staticmethod
    def make_(model: nn.Module, adaptation: Adaptation) -> None:
        """Let `model` know its sub-networks, in place."""
        kind = AdaptivePretrained if hasattr(type(model), "save_pretrained") else AdaptiveModule
        mix_in(model, kind, "Adaptive", adaptation=adaptation)
        adaptation.switch.root = weakref.ref(model)

    @staticmethod
    def unmake_(model: nn.Module) -> None:
        """Undo `make_`."""
        demote(model, AdaptiveModule)

    @property
    def space(self) -> SubNetSpace:
        """The sub-networks this model has."""
        return self._pliant_adaptation.switch.space

    @property
    def subnets(self) -> SubNets:
        """All sub-networks, smallest to largest: a sequence that computes them when they are asked for."""
        return self.space.subnets

    @property
    def anatomy(self) -> Anatomy:
        """What the reader found before the model was adapted."""
        return self._pliant_adaptation.anatomy

    @property
    def configs(self) -> tuple[Config, ...]:
        """The configs the model was adapted with."""
        return self._pliant_adaptation.configs

    @property
    def example_spec(self) -> Any:
        """What the example was that the model was adapted with, as `core.inputs.spec_of_example` says it, or none."""
        return self._pliant_adaptation.example

    @property
    def routes(self) -> tuple[SubNet, ...]:
        """The sub-networks among which the gate chooses, by ascending width; empty where there is none."""
        return self.space.routes

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._take_up_parts()

    def _take_up_parts(self) -> None:
        """Have one switch with all parts, after this was copied or unpickled.

        A part that was copied before the model, as within something that holds both, still has the switch of the old
        model; so has a deep copy of a shallow copy. A shallow copy shares its parts with the old model, and its switch.
        """
        adaptation = self._pliant_adaptation
        old = adaptation.switch.root and adaptation.switch.root()
        parts = [part for path in adaptation.followers for part in _present(self, path)]
        if adaptation.switch.root is None:
            adaptation.switch.root = weakref.ref(self)
        elif old is not self:
            if old is not None and any(part in parts for path in adaptation.followers for part in _present(old, path)):
                return
            switch = copy.deepcopy(adaptation.switch, {id(old): self})
            vars(self)["_pliant_adaptation"] = dataclasses.replace(adaptation, switch=switch)
        switch = self._pliant_adaptation.switch
        before = switch.copied_from and switch.copied_from()
        for part in parts:
            vars(part).update({name: switch for name, value in vars(part).items() if value is before is not None})

    def train(self, mode: bool = True) -> Self:
        """Do as `torch.nn.Module.train`.

        Raises:
            ValueError: a part was replaced after `pliant.adapt_`, and would run as in the super-net.
        """
        refuse_replaced(self, "train" if mode else "eval")
        return super().train(mode)

    def _replicate_for_data_parallel(self) -> nn.Module:
        raise ValueError(
            f"torch.nn.DataParallel runs a {type(self).__name__} in several threads, which would share the choice of "
            "the sub-network; use DistributedDataParallel, one process for each device"
        )

    def forward(
        self,
        *args: Any,
        subnet: str | SubNet | None = None,
        features: bool = False,
        exits: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Run one sub-network.

        Args:
            *args: what the model's own forward takes.
            subnet: which one, as a value or text; none = the super-net.
            features: also return the outputs of all stages, averaged over positions, but those that a mask among the
                arguments (`attention_mask`, or PyTorch's `key_padding_mask`) calls padding.
            exits: return what every exit answers, up to the sub-network's own.
            **kwargs: what the model's own forward takes.

        Returns:
            What the model's own forward returns, or the logits `[batch, classes]` of an early exit; with `exits` a
            list of logits, the first exit's first; with `features`, a pair of that and a list with one
            `[batch, channels]` tensor a stage.

        Raises:
            ValueError: the model has no such sub-network, or no exits, or a part that follows no sub-network.
        """
        if torch.compiler.is_compiling():
            reason = self._why_refused()
            if reason:
                raise ValueError(reason)
        else:
            self._look_again("forward")
        if not isinstance(exits, bool) and isinstance(exits, fx.Proxy):
            raise ValueError(
                f"torch.fx cannot trace this {type(self).__name__}, whose sub-network is an argument; trace what "
                "pliant.extract(model, subnet) gives"
            )
        resets = subnet is None and self._pliant_adaptation.switch.was_reset is not None
        fills = resets and self._fills_statistics(*args, **kwargs)
        recorded: list[Tensor] | None = [] if features else None
        mask = self._mask_in(args, kwargs)
        every_exit = exits or fills
        with self._pliant_adaptation.switch.running(subnet, recorded, every_exit=every_exit, mask=mask) as exit_pass:
            answer = None
            try:
                output = super().forward(*args, **kwargs)
            except Left as left:
                answer = left.args[0]
            if answer is not None:
                output = answer()
            if fills and exit_pass is not None:
                exit_pass.all_answers(logits_of(output))
        if exits:
            if exit_pass is None:
                raise ValueError(f"exits: this {type(self).__name__} has one classifier; adapt it with pliant.Exits()")
            output = exit_pass.all_answers(logits_of(output))
        return (output, recorded) if features else output

    def _mask_in(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mask | None:
        return mask_in(self._pliant_adaptation.masks, args, kwargs)

    def _fills_statistics(self, *args: Any, **kwargs: Any) -> bool:
        """Run the other sub-networks that have norms of their own, if all norms average what comes by.

        So they do in `torch.optim.swa_utils.update_bn`, which resets them and sets their momentum to none.
        """
        switch = self._pliant_adaptation.switch
        norm: Any = switch.was_reset
        if not norm.training or norm.momentum is not None or torch.is_grad_enabled():
            switch.was_reset = None
            return False
        for subnet in self.space.with_own_norms:
            if subnet != self.space.largest:
                self(*args, subnet=subnet, exits=subnet.exit is not None, **kwargs)
        return True

    def _look_again(self, caller: str) -> None:
        """Compare all parts with those at the time of `adapt_`, if one was changed since the last time."""
        seen = self._pliant_adaptation.switch.seen
        if seen is None or not is_unchanged(seen):
            refuse_replaced(self, caller)

    def _why_refused(self) -> str:
        """Return the message of `refuse_replaced`, or nothing. A compiler runs this when it makes code."""
        try:
            refuse_replaced(self, "forward")
        except ValueError as error:
            return str(error)
        return ""

    # What torch.compiler.assume_constant_result does, which would import the compiler.
    _why_refused._dynamo_marked_constant = True  # type: ignore[attr-defined]

    def leave_early(
        self,
        *args: Any,
        decide: Decide,
        at: Collection[int] | None = None,
        subnet: str | SubNet | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Run a batch that shrinks: at every exit the inputs leave that are decided, and the others go on.

        Args:
            *args: what the model's own forward takes.
            decide: called at every exit before that of `subnet` with its number, counted from 1, and the logits
                `[inputs still inside, classes]`; says which of these leave, `[inputs still inside]` of bool.
            at: the exits at which inputs may leave; the classifiers of the others do not run, unless exits take the
                answers of those before them. None = all.
            subnet: the sub-network that answers those who never leave before; none = the super-net.
            **kwargs: what the model's own forward takes.

        Returns:
            Logits `[batch, classes]`, and the exit at which each input left, `[batch]`.

        Raises:
            ValueError: the model has no such sub-network, or no exits, or a part that follows no sub-network; or some
                inputs of a batch with a padding mask leave, and others do not.
        """
        self._look_again("leave_early")
        mask = self._mask_in(args, kwargs)
        with self._pliant_adaptation.switch.running(subnet, decide=decide, decides_at=at, mask=mask) as exit_pass:
            if exit_pass is None:
                kind = type(self).__name__
                raise ValueError(f"leave_early: this {kind} has one classifier; adapt it with pliant.Exits()")
            try:
                return exit_pass.finish(logits_of(super().forward(*args, **kwargs)))
            except Left:
                return exit_pass.answers()

    def gated(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Let the gate choose the width for every input.

        All inputs run to the gate; those that it sends the same way go on together.

        Args:
            x: what the model takes, `[batch, ...]`.

        Returns:
            Logits `[batch, classes]`, and for each input the place of its sub-network in `routes`, `[batch]`.

        Raises:
            ValueError: the model has no gate.
        """
        with self._pliant_adaptation.switch.gating() as gate_pass:
            part = logits_of(self(x, subnet=self.routes[0]))
            if not gate_pass.waiting:
                return part, gate_pass.places
            logits = part.new_empty(len(x), *part.shape[1:])
            logits[gate_pass.inside] = part
            for place in list(gate_pass.waiting):
                # One input stands for them up to the gate, where what is waiting takes its place.
                gate_pass.resume(place)
                logits[gate_pass.inside] = logits_of(self(x[:1], subnet=self.routes[place]))
        return logits, gate_pass.places

    def seen_by_gate(self, x: Tensor, route: SubNet | None = None) -> tuple[Tensor, Tensor]:
        """Run one route and return what the gate chooses by: to train it.

        Args:
            x: what the model takes, `[batch, ...]`.
            route: one of `routes`; none = the narrowest. What the gate sees is the same for all.

        Returns:
            Logits `[batch, classes]` of that route, and the features `[batch, features]` from which the gate
            makes scores.

        Raises:
            ValueError: the model has no gate.
        """
        with self._pliant_adaptation.switch.gating(chooses=False) as gate_pass:
            logits = logits_of(self(x, subnet=route or self.routes[0]))
        assert gate_pass.features is not None
        return logits, gate_pass.features


def _present(model: nn.Module, path: str) -> list[nn.Module]:
    try:
        return [model.get_submodule(path)]
    except AttributeError:
        return []


class AdaptivePretrained(AdaptiveModule):
    """An `AdaptiveModule` whose class has `save_pretrained`, as those of transformers and of huggingface_hub's mixin.

    What they write holds no config of pliant: it would be loaded as the plain super-net.
    """

    # As the mixin itself has it: `mix_in` gives it the signature of the model's own.
    forward = AdaptiveModule.forward

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse to write files in which the sub-networks would be lost.

        Raises:
            ValueError: always; says what to do.
        """
        raise ValueError(
            f"save_pretrained: this {type(self).__name__} is adapted, and would be loaded as the plain super-net; use "
            "pliant.save(model, directory), or pliant.extract(model, subnet).save_pretrained(directory) for one "
            "sub-network"
        )

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse as `save_pretrained`, before there is a repository.

        Raises:
            ValueError: always; says what to do.
        """
        raise ValueError(
            f"push_to_hub: this {type(self).__name__} is adapted, and would be loaded as the plain super-net; use "
            "pliant.save(model, directory) and pliant.push(directory, 'USER/NAME'), or "
            "pliant.extract(model, subnet).push_to_hub(...) for one sub-network"
        )


def as_adaptive(model: nn.Module, caller: str) -> AdaptiveModule:
    """Return a model that has sub-networks; `caller` is who needs them.

    Raises:
        ValueError: it has none, or torch has wrapped it.
    """
    refuse_wrapped(model, caller)
    if not isinstance(model, AdaptiveModule):
        raise ValueError(
            f"{caller}: this {type(model).__name__} has no sub-networks; adapt it first with pliant.adapt_"
        )
    refuse_replaced(model, caller)
    refuse_out_of_date(model, caller)
    return model


@uncompiled
def refuse_replaced(model: AdaptiveModule, caller: str) -> None:
    """Refuse a model of which a part no longer follows the sub-network; see `core.belonging.refuse_strangers`.

    Raises:
        ValueError: names the first such part.
    """
    adaptation = model._pliant_adaptation
    refuse_strangers(model, adaptation.followers, adaptation.switch, caller)
    _refuse_other_classes(model, caller)
    adaptation.switch.seen = look(model, filter(None, [*adaptation.followers, adaptation.anatomy.head]))


def to_make_plain(model: nn.Module, caller: str) -> AdaptiveModule:
    """Return a model of which plain networks can be made; `caller` is who does that.

    Raises:
        ValueError: as `as_adaptive`; or a wrapper is around a part, or its `forward` was replaced.
    """
    adaptive = as_adaptive(model, caller)
    refuse_moved(adaptive, adaptive._pliant_adaptation.followers, caller)
    return adaptive


def _refuse_other_classes(model: AdaptiveModule, caller: str) -> None:
    """Refuse a network whose classifier was replaced by one of other classes than its exits have."""
    if not model.space.exit_stages:
        return
    head = model.get_submodule(model.anatomy.head)
    ends = [layer.out_features for layer in head.modules() if isinstance(layer, nn.Linear) and not is_mixed(layer)]
    own = num_classes_of(model) or (ends[-1] if ends else 0 if isinstance(head, nn.Identity) else None)
    if own is None:  # no linear layer, whose classes only its output tells
        return
    for path, module in model.named_modules():
        if "ExitPoint" not in mixins_of(module):
            continue
        # A layer that collaborates has others inside, of other sizes.
        layers = module.get_submodule("exit").named_modules()
        classes = [layer.out_features for name, layer in layers if isinstance(layer, nn.Linear) and "." not in name]
        if classes and classes[-1] != own:
            raise ValueError(
                f"{caller}: the classifier {model.anatomy.head!r} has {own} classes, and the exit of {path!r} has "
                f"{classes[-1]}; give the network its classes first, then adapt it"
            )


def num_classes_of(model: AdaptiveModule) -> int | None:
    """Return how many classes the classifier of a model has now; it may have been replaced after `adapt_`.

    None where it is no linear layer, so that only its output tells.
    """
    head = model.get_submodule(model.anatomy.head) if model.anatomy.num_classes else None
    return head.out_features if isinstance(head, nn.Linear) else None


def every_subnet(model: AdaptiveModule, caller: str, way_out: str) -> SubNets:
    """Return all sub-networks of a model, for what goes through them one by one.

    Args:
        model: the model.
        caller: what goes through them.
        way_out: what to do instead where there are too many.

    Raises:
        ValueError: there are more than `MOST_LISTED`.
    """
    count = model.space.num_subnets
    if count > MOST_LISTED:
        raise ValueError(
            f"{caller}: got all {count} sub-networks of this {type(model).__name__}, expected at most {MOST_LISTED}; "
            f"{way_out}"
        )
    return model.subnets


class StageEnd(nn.Module):
    """Mixed into the last block of every stage: hands the stage's output to the switch.

    Comes in front of whatever else the block was mixed with, so that a skipped block's output, which
    is its input, counts as the stage's.
    """

    _pliant_recorder: Switch
    _pliant_channel_dim: int

    @staticmethod
    def make_(block: nn.Module, switch: Switch, channel_dim: int) -> None:
        """Make `block` report its output, in place."""
        mix_in(block, StageEnd, "StageEnd", recorder=switch, channel_dim=channel_dim)

    @staticmethod
    def unmake_(block: nn.Module) -> None:
        """Undo `make_`."""
        demote(block, StageEnd)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the block and record what it returns."""
        output = super().forward(*args, **kwargs)
        self._pliant_recorder.record(output, self._pliant_channel_dim)
        return output
