"""`Objective`: executes a plan. One batch in, one loss out, for anybody's training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

import torch
from torch import Tensor, nn

from pliant.core.adaptive import AdaptiveModule
from pliant.core.inputs import logits_of
from pliant.core.plan import Plan, Term
from pliant.core.subnet import SubNetSpace
from pliant.plans import build_plan, default_plan
from pliant.train.losses import feature_divergence, label_loss, logit_divergence

__all__ = ["Objective"]

# The label of positions that are none, such as the padding of a text: as in torch's cross-entropy.
IGNORED = -100


@dataclass(frozen=True)
class _Outputs:
    """What one pass leaves behind: logits `[batch, classes]`, stage outputs `[batch, channels]` each."""

    logits: Tensor
    features: list[Tensor]

    def detach(self) -> _Outputs:
        return _Outputs(self.logits.detach(), [feature.detach() for feature in self.features])


class Objective(nn.Module):
    """The loss of a plan on one batch (ADN paper, Algorithm 1, for the plan `adn`).

    `objective(x, y)` returns the loss of all terms, to be differentiated at once. `objective.backward(x, y)`
    differentiates pass by pass, which gives the same gradients and holds the activations of one
    sub-network at a time. A teacher is always detached: distillation changes the student alone.

    Args:
        model: an adapted model, compiled or not; a plain network learns from the labels only. Early exits that one
            pass comes by are computed in that pass.
        plan: what to learn; none = the default plan of the model's wing.
        label_smoothing: for the terms on labels.

    Attributes:
        terms: the weighted value of every term in the last batch, detached.
        progress: the fraction of the training that is done, for terms that start late.
    """

    def __init__(self, model: nn.Module, plan: Plan | None = None, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.model = model
        adapted = _adapted(model)
        if adapted is not None:
            space = adapted.space
            plan = build_plan(default_plan(space), space) if plan is None else plan.resolve(space)
        elif plan is None:
            plan = Plan(name="labels", terms=(Term(student="largest"),))
        elif any(term.student != "largest" or term.teacher is not None for term in plan.terms):
            raise ValueError(f"plan {plan.name!r} needs sub-networks, but this {type(model).__name__} is not adapted")
        self.plan = plan
        self._switches = adapted is not None
        self._passes = _passes(plan, adapted.space) if adapted is not None else {"largest": ("largest",)}
        self.label_smoothing = label_smoothing
        self.terms: dict[str, Tensor] = {}
        self.progress = 0.0

    def forward(self, x: Tensor | Mapping[str, Tensor], y: Tensor) -> Tensor:
        """Return the loss of one batch.

        Args:
            x: images, or what else the model takes; a mapping is passed on as keywords.
            y: labels `[batch]`, or probabilities `[batch, classes]`; of a language model `[batch, tokens]`, where
                -100 marks positions that do not count.
        """
        losses = self._each_pass(x, y, lambda loss: loss)
        return sum(losses[1:], losses[0])

    def backward(
        self, x: Tensor | Mapping[str, Tensor], y: Tensor, step: Callable[[Tensor], None] = Tensor.backward
    ) -> Tensor:
        """Add the gradients of the loss pass by pass; returns the detached loss.

        Args:
            x: as in `forward`.
            y: as in `forward`.
            step: what differentiates one pass's loss, where plain `Tensor.backward` will not do, as with
                a gradient scaler.
        """

        def differentiate(loss: Tensor) -> Tensor:
            # The caller's autocast is for the forward passes; a backward pass repeats their types by itself.
            # Its cache would hold a copy of all weights until the last pass is over.
            torch.clear_autocast_cache()
            with torch.autocast(y.device.type, enabled=False):
                step(loss)
            return loss.detach()

        losses = self._each_pass(x, y, differentiate)
        return sum(losses[1:], losses[0])

    def _each_pass(
        self, x: Tensor | Mapping[str, Tensor], y: Tensor, finish: Callable[[Tensor], Tensor]
    ) -> list[Tensor]:
        """Make every pass of the plan, teachers first; `finish` gets the loss of each."""
        self.terms = {}
        counted = y != IGNORED if _is_text(y) else None
        y = y if counted is None else y[counted]
        active = [term for term in self.plan.terms if term.start <= self.progress]
        named = {name for term in active for name in (term.student, term.teacher)}
        teachers: dict[str, _Outputs] = {}
        losses = []
        for members in self._passes.values():
            wanted = [subnet for subnet in members if subnet in named]
            if not wanted:
                continue
            concerned = [term for term in active if term.student in wanted or term.teacher in wanted]
            outputs = self._run(x, wanted, counted, features=any(term.on == "features" for term in concerned))
            for subnet in wanted:
                if any(term.teacher == subnet for term in concerned):
                    teachers[subnet] = outputs[subnet].detach()
            terms = [self._value(term, outputs[term.student], teachers, y) for term in active if term.student in wanted]
            if terms:
                losses.append(finish(sum(terms[1:], terms[0])))
            del outputs, terms
        if not losses:
            raise ValueError(f"plan {self.plan.name!r} has no term that counts at progress {self.progress:.3f}")
        return losses

    def _run(
        self, x: Tensor | Mapping[str, Tensor], members: list[str], counted: Tensor | None, *, features: bool
    ) -> dict[str, _Outputs]:
        """Make one pass, and return what each of its members gave, the last of which it runs to.

        Of a text, the logits of all positions that count become one batch.
        """
        options: dict[str, Any] = {}
        if self._switches:
            options = {"subnet": members[-1]} | ({"features": True} if features else {})
            options |= {"exits": True} if len(members) > 1 else {}
        output = self.model(**x, **options) if isinstance(x, Mapping) else self.model(x, **options)
        output, stages = output if features else (output, [])
        answers = [output]
        if len(members) > 1:
            answers = [output[self._exit(subnet) - 1] for subnet in members]
        every = [logits_of(answer) for answer in answers]
        every = every if counted is None else [logits[counted] for logits in every]
        return {subnet: _Outputs(logits, stages) for subnet, logits in zip(members, every, strict=True)}

    def _exit(self, subnet: str) -> int:
        adapted = _adapted(self.model)
        assert adapted is not None
        return adapted.space.parse(subnet).exit or 1

    def _value(self, term: Term, outputs: _Outputs, teachers: dict[str, _Outputs], y: Tensor) -> Tensor:
        if term.teacher is None:
            value = label_loss(outputs.logits, y, self.label_smoothing)
        elif term.on == "logits":
            value = logit_divergence(outputs.logits, teachers[term.teacher].logits, term.temperature, term.top_k)
        else:
            value = feature_divergence(outputs.features, teachers[term.teacher].features, term.temperature, term.stages)
        value = value * term.weight
        self.terms[term.name] = value.detach()
        return value


def _passes(plan: Plan, space: SubNetSpace) -> dict[str, tuple[str, ...]]:
    """Say which passes a plan takes, by the sub-network that each runs to, teachers before their students.

    A pass answers for every early exit that it comes by; its members are in the order of their exits.

    Raises:
        ValueError: two passes would have to wait for each other.
    """
    members: dict[str, list[str]] = {}
    of: dict[str, str] = {}
    for subnet in sorted(plan.passes(), key=lambda name: -(space.parse(name).exit or 0)):
        found = next((leader for leader in members if space.answers(space.parse(subnet), space.parse(leader))), subnet)
        members.setdefault(found, []).insert(0, subnet)
        of[subnet] = found
    before = {
        leader: {of[t.teacher] for t in plan.terms if t.teacher is not None and of[t.student] == leader} - {leader}
        for leader in (of[subnet] for subnet in plan.passes())
    }
    try:
        return {leader: tuple(members[leader]) for leader in TopologicalSorter(before).static_order()}
    except CycleError as error:
        raise ValueError(
            f"plan {plan.name!r}: the passes of {' and '.join(error.args[1][1:])} teach each other"
        ) from None


def _adapted(model: nn.Module) -> AdaptiveModule | None:
    """Return the adapted model that `model` is, or is compiled from; none for a plain network.

    Raises:
        ValueError: an adapted model is a part of `model`, which would run its super-net alone.
    """
    while isinstance(compiled_from := getattr(model, "_orig_mod", None), nn.Module):  # of torch.compile
        model = compiled_from
    if isinstance(model, AdaptiveModule):
        return model
    if any(isinstance(part, AdaptiveModule) for part in model.modules()):
        kind = type(model).__name__
        raise ValueError(
            f"Objective: got a {kind} around an adapted model, expected the adapted model itself; what is to go around "
            f"it goes around the objective: {kind}(pliant.Objective(model))"
        )
    return None


def _is_text(y: Tensor) -> bool:
    """Whether labels are `[batch, tokens]`; probabilities `[batch, classes]` are no whole numbers."""
    return y.dim() == 2 and not y.is_floating_point()
