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
from pliant.readers import stated_task
from pliant.train.draws import Draws
from pliant.train.fitting import check_values, fit, labels_of
from pliant.train.idle import with_idle_parameters
from pliant.train.losses import IGNORED, Loss, Task, feature_divergence
from pliant.train.missed import Missed
from pliant.train.passes import Outputs, Passes

__all__ = ["Objective"]

CHECK_EVERY = 20
"""Steps between two checks of the values of labels that are on an accelerator, which wait for it."""

Inputs = Tensor | Mapping[str, Tensor]
"""Images, or what else a model takes; a mapping is passed on as keywords."""


class Objective(nn.Module):
    """The loss of a plan on one batch (ADN paper, Algorithm 1, for the plan `adn`).

    `objective(x, y)` returns the loss of all terms, to be differentiated at once. `objective.backward(x, y)`
    differentiates pass by pass, which gives the same gradients and holds the activations of one
    sub-network at a time. A teacher is always detached: distillation changes the student alone. Students can see
    images of their own: `objective(x, y, students)`.

    Outputs and labels decide the loss (docs/training.md has the table): a softmax over the classes, at every position
    of dense outputs; a sigmoid for one logit, or for several labels an image. The first batch decides for all others,
    which are refused where they do not fit. Labels on the CPU are all checked; of those on an accelerator every 20th
    batch, from the first.

    Args:
        model: an adapted model, compiled or not; a plain network with `plan=pliant.plans.LABELS` only. Early exits that
            one pass comes by are computed in that pass.
        plan: what to learn; none = the default plan of the model's axes.
        label_smoothing: for the terms on labels, in [0, 1).
        task: `multiclass`, `binary`, `multilabel` or `causal-lm` (the labels are the tokens themselves, of which every
            position predicts the next one); none = what outputs and labels say, and `causal-lm` for the language models
            of transformers that do so.
        class_dim: the dimension of the logits that holds the classes; none = the one that the labels' shape lacks.
        class_weights: for the terms on labels, one for each class; of one logit two, for the labels 0 and 1.
        ignore_index: the label of images or positions that do not count, in the terms on labels and on logits.
        teacher: a network that answers in place of the model wherever the plan names a teacher, such as the model as
            it was before (IMTA paper, section 3.3); none = the model itself. It is put in eval mode and does not learn;
            it is no part of the objective's state, and stays on the device that it is on. One without sub-networks
            can teach what `largest` teaches.

    Attributes:
        terms: the weighted value of every term in the last batch, detached.
        progress: the fraction of the training that is done, for terms that start late.

    Raises:
        ValueError: the model was not adapted, the plan names what it does not have, or an argument is out of its range.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan | None = None,
        *,
        label_smoothing: float = 0.0,
        task: Task | None = None,
        class_dim: int | None = None,
        class_weights: Sequence[float] | Tensor | None = None,
        ignore_index: int = IGNORED,
        teacher: nn.Module | None = None,
    ) -> None:
        super().__init__()
        for name, network in (("model", model), ("teacher", teacher)):
            if not isinstance(network, nn.Module) and (name == "model" or network is not None):
                raise ValueError(f"Objective: {name}: got a {type(network).__name__}, expected a network")
        self.model = model
        adapted = _adapted(model)
        if adapted is not None:
            space = adapted.space
            plan = plan_for(plan, space)
            if plan.is_of_gate:
                raise ValueError(f"Objective: plan {plan.name!r} is for gates; use pliant.GateObjective")
            _check_stages(plan, len(adapted.anatomy.stages))
        else:
            plan = _of_plain_network(plan, type(model).__name__)
            if teacher is not None:
                raise ValueError(f"Objective: teacher: plan {plan.name!r} has no term with one")
        self.plan = plan
        self._space = adapted.space if adapted is not None else None
        self._draws = _draws(plan, self._space) if plan.random and self._space is not None else None
        self._teacher = _Teacher(teacher, plan, adapted.space) if teacher is not None and adapted is not None else None
        self._fixed = None if plan.random else self._step(plan)
        self._missed: Missed | None = None
        self._loss = Loss(
            task=stated_task(_uncompiled(model)) if task is None else task,  # type: ignore[arg-type]
            class_dim=class_dim,
            class_weights=class_weights.tolist() if isinstance(class_weights, Tensor) else class_weights,  # type: ignore[arg-type]
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
        )
        self._batches, self._unchecked = 0, True
        self.terms: dict[str, Tensor] = {}
        self.progress = 0.0

    def forward(self, x: Inputs, y: Tensor, students: Inputs | None = None) -> Tensor:
        """Return the loss of one batch.

        Args:
            x: images, or what else the model takes; a mapping is passed on as keywords.
            y: class numbers in the shape of the logits without their classes, probabilities in that of the logits, or
                zeros and ones: `[batch]` or `[batch, classes]` for images, `[batch, tokens]` for texts.
            students: another view of the same images, in the same order, for those who learn from a teacher, which
                sees `x` (multi-view consistency); none = all see `x`.

        Raises:
            ValueError: the labels do not fit what the network gives, or one is out of range; a view for students, but
                with this plan there are none, or not apart from their teachers; the optimizer misses parameters that
                `adapt_` added.
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
        y = labels_of(y)
        self._unchecked = y.is_cpu or self._batches % CHECK_EVERY == 0
        self._batches += 1
        step = self._fixed or self._step(self.plan.drawn(self._draw()))
        active = {name: term for name, term in step.terms.items() if term.start <= self.progress}
        if torch.is_grad_enabled() and self._space is not None:
            self._missed = self._missed or _watched(self.model)
            self._missed.check()
        teachers: dict[str, Outputs] = {}
        if self._teacher and step.teaching:
            teachers = self._teacher.answers(x, list(active.values()), step.teaching)
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
            outputs = step.passes.run(self.model, seen, wanted, features=features)
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
            value = self._loss_of(outputs.logits, y).labels(outputs.logits, y)
        elif term.on == "logits":
            loss, teacher = self._loss_of(outputs.logits, y), teachers[term.teacher].logits
            value = loss.divergence(outputs.logits, teacher, y, term.temperature, term.top_k)
        else:
            value = feature_divergence(outputs.features, teachers[term.teacher].features, term.temperature, term.stages)
        value = value * term.weight
        self.terms[name] = value.detach()
        return value

    def _loss_of(self, logits: Tensor, y: Tensor) -> Loss:
        """Return the loss that fits; the values of labels are checked once a batch."""
        loss = fit(self._loss, logits, y)
        if self._unchecked:
            check_values(loss, logits, y)
            self._unchecked = False
        self._loss = loss
        return loss


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
    def answers(self, x: Inputs, terms: Sequence[Term], passes: Passes) -> dict[str, Outputs]:
        """Return what the teachers of some terms of the plan answer, by their names."""
        found: dict[str, Outputs] = {}
        for members in passes.members:
            concerned = [term for term in terms if term.teacher in members]
            wanted = [subnet for subnet in members if subnet in _teachers(concerned)]
            if wanted:
                features = any(term.on == "features" for term in concerned)
                found |= passes.run(self._network, x, wanted, features=features)
        return found


def _draws(plan: Plan, space: SubNetSpace) -> Draws:
    return Draws(space, [space.parse(name) for name in plan.passes() if name not in plan.random])


def _of_plain_network(plan: Plan | None, kind: str) -> Plan:
    if plan is None:
        raise ValueError(
            f"Objective: this {kind} has no sub-networks; adapt it first with pliant.adapt_, or train it as it is with "
            "plan=pliant.plans.LABELS"
        )
    if not isinstance(plan, Plan) or any(term.student != "largest" or term.teacher is not None for term in plan.terms):
        raise ValueError(
            f"plan: got {getattr(plan, 'name', plan)!r}, expected pliant.plans.LABELS, as this {kind} is not adapted"
        )
    return plan


def _check_stages(plan: Plan, count: int) -> None:
    for term in plan.terms:
        if term.stages is not None and max(term.stages) > count:
            raise ValueError(
                f"stages: got {list(term.stages)} in {term.name!r} of plan {plan.name!r}, expected numbers from 1 to "
                f"{count}, as this model has {count} stages"
            )


def _watched(model: nn.Module) -> Missed:
    adapted = _uncompiled(model)
    assert isinstance(adapted, AdaptiveModule)
    return Missed(adapted)


def _teachers(terms: Sequence[Term]) -> set[str]:
    return {term.teacher for term in terms if term.teacher is not None}


def _adapted(model: nn.Module) -> AdaptiveModule | None:
    """Return the adapted model that `model` is, or is compiled from; none for a plain network.

    Raises:
        ValueError: an adapted model is a part of `model`, which would run its super-net alone.
    """
    model = _uncompiled(model)
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


def _uncompiled(model: nn.Module) -> nn.Module:
    """Return the network that `torch.compile` was given."""
    while isinstance(compiled_from := getattr(model, "_orig_mod", None), nn.Module):
        model = compiled_from
    return model
