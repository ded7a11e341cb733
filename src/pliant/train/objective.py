"""`Objective`: executes a plan. One batch in, one loss out, for anybody's training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pliant.core.adaptive import AdaptiveModule, refuse_replaced
from pliant.core.plan import Plan, Term
from pliant.core.subnet import SubNetSpace
from pliant.plans import plan_for
from pliant.train.draws import Draws
from pliant.train.idle import with_idle_parameters
from pliant.train.losses import feature_divergence, label_loss, logit_divergence
from pliant.train.passes import Outputs, Passes

__all__ = ["Objective"]

# The label of positions that are none, such as the padding of a text: as in torch's cross-entropy.
IGNORED = -100

Inputs = Tensor | Mapping[str, Tensor]
"""Images, or what else a model takes; a mapping is passed on as keywords."""


class Objective(nn.Module):
    """The loss of a plan on one batch (ADN paper, Algorithm 1, for the plan `adn`).

    `objective(x, y)` returns the loss of all terms, to be differentiated at once. `objective.backward(x, y)`
    differentiates pass by pass, which gives the same gradients and holds the activations of one
    sub-network at a time. A teacher is always detached: distillation changes the student alone. Students can see
    images of their own: `objective(x, y, students)`.

    Args:
        model: an adapted model, compiled or not; a plain network learns from the labels only. Early exits that one
            pass comes by are computed in that pass.
        plan: what to learn; none = the default plan of the model's wing.
        label_smoothing: for the terms on labels.
        teacher: a network that answers in place of the model wherever the plan names a teacher, such as the model as
            it was before (IMTA paper, section 3.3); none = the model itself. It is put in eval mode and does not learn;
            it is no part of the objective's state, and stays on the device that it is on. One without sub-networks
            can teach what `largest` teaches.

    Attributes:
        terms: the weighted value of every term in the last batch, detached.
        progress: the fraction of the training that is done, for terms that start late.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan | None = None,
        *,
        label_smoothing: float = 0.0,
        teacher: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        adapted = _adapted(model)
        if adapted is not None:
            space = adapted.space
            plan = plan_for(plan, space)
            if plan.is_of_gate:
                raise ValueError(f"Objective: plan {plan.name!r} is for gates; use pliant.GateObjective")
        elif plan is None:
            plan = Plan(name="labels", terms=(Term(student="largest"),))
        elif any(term.student != "largest" or term.teacher is not None for term in plan.terms):
            raise ValueError(f"plan {plan.name!r} needs sub-networks, but this {type(model).__name__} is not adapted")
        self.plan = plan
        self._space = adapted.space if adapted is not None else None
        self._draws = _draws(plan, self._space) if plan.random and self._space is not None else None
        self._teacher = _Teacher(teacher, plan, adapted.space) if teacher is not None and adapted is not None else None
        self._fixed = None if plan.random else self._step(plan)
        self.label_smoothing = label_smoothing
        self.terms: dict[str, Tensor] = {}
        self.progress = 0.0

    def forward(self, x: Inputs, y: Tensor, students: Inputs | None = None) -> Tensor:
        """Return the loss of one batch.

        Args:
            x: images, or what else the model takes; a mapping is passed on as keywords.
            y: labels `[batch]`, or probabilities `[batch, classes]`; of a language model `[batch, tokens]`, where
                -100 marks positions that do not count.
            students: another view of the same images, in the same order, for those who learn from a teacher, which
                sees `x` (multi-view consistency); none = all see `x`.

        Raises:
            ValueError: a view for students, but with this plan there are none, or not apart from their teachers.
        """
        losses = self._each_pass(x, y, students, lambda loss: loss)
        return with_idle_parameters(sum(losses[1:], losses[0]), self.model)

    def backward(
        self,
        x: Inputs,
        y: Tensor,
        students: Inputs | None = None,
        *,
        step: Callable[[Tensor], None] = Tensor.backward,
    ) -> Tensor:
        """Add the gradients of the loss pass by pass; returns the detached loss.

        Args:
            x: as in `forward`.
            y: as in `forward`.
            students: as in `forward`.
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

        losses = self._each_pass(x, y, students, differentiate)
        return sum(losses[1:], losses[0])

    def check_views(self) -> None:
        """Find out whether students can see images of their own.

        Raises:
            ValueError: nobody learns from a teacher, or somebody does in a pass that teaches others.
        """
        terms = [term for term in self.plan.terms if term.teacher]
        if not terms or self._space is None:
            raise ValueError(f"two views: in plan {self.plan.name!r} nobody learns from a teacher")
        if self._teacher:
            return
        # Exits that are drawn may share a pass with whomever.
        together = [self.plan.passes()] if self._space.exit_stages else [(name,) for name in self.plan.passes()]
        for members in self._fixed.passes.members if self._fixed else together:
            taught = next((term for term in terms if term.student in members), None)
            teaching = next((term for term in terms if term.teacher in members), None)
            if taught and teaching:
                raise ValueError(
                    f"two views: in plan {self.plan.name!r} one pass answers for the student of {taught.name!r} and "
                    f"the teacher of {teaching.name!r}, and sees one view; let another network teach, or give one view"
                )

    def _each_pass(
        self, x: Inputs, y: Tensor, students: Inputs | None, finish: Callable[[Tensor], Tensor]
    ) -> list[Tensor]:
        """Make every pass of the plan, teachers first; `finish` gets the loss of each."""
        if students is not None:
            self.check_views()
        self.terms = {}
        counted = y != IGNORED if _is_text(y) else None
        y = y if counted is None else y[counted]
        step = self._fixed or self._step(self.plan.drawn(self._draw()))
        active = {name: term for name, term in step.terms.items() if term.start <= self.progress}
        teachers: dict[str, Outputs] = {}
        if self._teacher and step.teaching:
            teachers = self._teacher.answers(x, list(active.values()), step.teaching, counted)
        by_itself = [] if self._teacher else [term for term in active.values() if term.teacher]
        named = {term.student for term in active.values()} | {term.teacher for term in by_itself}
        losses = []
        for members in step.passes.members:
            wanted = [subnet for subnet in members if subnet in named]
            if not wanted:
                continue
            own = {name: term for name, term in active.items() if term.student in wanted}
            teaches = [term for term in by_itself if term.teacher in wanted]
            features = any(term.on == "features" for term in (*own.values(), *teaches))
            seen = x if students is None or not any(term.teacher for term in own.values()) else students
            outputs = step.passes.run(self.model, seen, wanted, counted, features=features)
            teachers |= {subnet: outputs[subnet].detach() for subnet in wanted if subnet in _teachers(teaches)}
            values = [self._value(name, term, outputs[term.student], teachers, y) for name, term in own.items()]
            if values:
                losses.append(finish(sum(values[1:], values[0])))
            del outputs, values
        if not losses:
            raise ValueError(f"plan {self.plan.name!r} has no term that counts at progress {self.progress:.3f}")
        return losses

    def _step(self, plan: Plan) -> _Step:
        """Return what one step does; `plan` is this objective's, with sub-networks in place of what is drawn."""
        terms = dict(zip((term.name for term in self.plan.terms), plan.terms, strict=True))
        if self._teacher is None:
            return _Step(terms, Passes(plan, self._space, plan.passes()), None)
        learning = {term.student for term in plan.terms}
        return _Step(terms, Passes(plan, self._space, learning), self._teacher.passes(plan))

    def _draw(self) -> dict[str, str]:
        """Choose the sub-networks that the plan leaves open, from those it does not name, the same in all processes."""
        random = self.plan.random
        assert self._draws is not None
        chosen = self._draws.draw(len(random), next(self.model.parameters()).device)
        return dict(zip(random, map(str, chosen), strict=True))

    def _value(self, name: str, term: Term, outputs: Outputs, teachers: dict[str, Outputs], y: Tensor) -> Tensor:
        if term.teacher is None:
            value = label_loss(outputs.logits, y, self.label_smoothing)
        elif term.on == "logits":
            value = logit_divergence(outputs.logits, teachers[term.teacher].logits, term.temperature, term.top_k)
        else:
            value = feature_divergence(outputs.features, teachers[term.teacher].features, term.temperature, term.stages)
        value = value * term.weight
        self.terms[name] = value.detach()
        return value


@dataclass(frozen=True)
class _Step:
    """What one step does.

    Attributes:
        terms: the terms of its plan, under the names by which they are known in every step.
        passes: of the model.
        teaching: passes of the teacher, where another network teaches.
    """

    terms: dict[str, Term]
    passes: Passes
    teaching: Passes | None


class _Teacher:
    """A network beside the model that answers wherever the plan names a teacher.

    Raises:
        ValueError: it does not have the sub-networks that teach.
    """

    def __init__(self, network: nn.Module, plan: Plan, space: SubNetSpace) -> None:
        terms = [term for term in plan.terms if term.teacher is not None]
        adapted = _adapted(network)
        if adapted is None:
            largest = str(space.largest)
            beyond = [term.name for term in terms if term.on == "features" or term.teacher != largest]
            if beyond:
                raise ValueError(
                    f"Objective: the teacher is a {type(network).__name__} without sub-networks, which can teach what "
                    f"{largest} answers, but not {beyond[0]!r} of plan {plan.name!r}"
                )
        elif not adapted.space.has_same_subnets(space):
            theirs, ours = (f"{one.smallest} to {one.largest}" for one in (adapted.space, space))
            raise ValueError(f"Objective: the teacher has other sub-networks than the model: {theirs}, expected {ours}")
        self._network = network.eval()
        self._space = adapted.space if adapted is not None else None

    def passes(self, plan: Plan) -> Passes:
        """Return the passes that it takes to teach what a plan names."""
        return Passes(plan, self._space, _teachers(plan.terms))

    @torch.no_grad()
    def answers(self, x: Inputs, terms: Sequence[Term], passes: Passes, counted: Tensor | None) -> dict[str, Outputs]:
        """Return what the teachers of some terms of the plan answer, by their names."""
        found: dict[str, Outputs] = {}
        for members in passes.members:
            concerned = [term for term in terms if term.teacher in members]
            wanted = [subnet for subnet in members if subnet in _teachers(concerned)]
            if wanted:
                features = any(term.on == "features" for term in concerned)
                found |= passes.run(self._network, x, wanted, counted, features=features)
        return found


def _draws(plan: Plan, space: SubNetSpace) -> Draws:
    return Draws(space, [space.parse(name) for name in plan.passes() if name not in plan.random])


def _teachers(terms: Sequence[Term]) -> set[str]:
    return {term.teacher for term in terms if term.teacher is not None}


def _adapted(model: nn.Module) -> AdaptiveModule | None:
    """Return the adapted model that `model` is, or is compiled from; none for a plain network.

    Raises:
        ValueError: an adapted model is a part of `model`, which would run its super-net alone.
    """
    while isinstance(compiled_from := getattr(model, "_orig_mod", None), nn.Module):  # of torch.compile
        model = compiled_from
    if isinstance(model, AdaptiveModule):
        refuse_replaced(model, "Objective")
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
