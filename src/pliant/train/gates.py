"""`GateObjective`: teaches a gate to choose the width. DS-Net's Stage II, in which nothing else learns.

Letters of shapes: B batch, R routes, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pliant.core.adaptive import as_adaptive
from pliant.core.inputs import logits_of
from pliant.core.macs import count_macs
from pliant.core.modes import evaluating
from pliant.core.plan import Plan
from pliant.extract import extract
from pliant.plans import plan_for
from pliant.train.fitting import check_values, fit, labels_of
from pliant.train.losses import Loss
from pliant.width.gates import gate_of

__all__ = ["GateObjective"]

TEMPERATURE = 1.0  # of the Gumbel-softmax, as published


class GateObjective(nn.Module):
    """The loss of a plan for gates on one batch (DS-Net paper, section 3.4).

    All routes answer every input, without gradients and as at inference. The gate draws one of them by a
    Gumbel-softmax, whose gradient is that of the soft choice; noise belongs to training alone.

    Args:
        model: adapted, with a gate.
        plan: whose student is the gate; none = the plan `gates`.
        label_smoothing: for the term on labels.
        class_weights: for the term on labels, one for each class.

    Attributes:
        terms: the weighted value of every term in the last batch, detached.
        progress: the fraction of the training that is done, for terms that start late.

    Raises:
        ValueError: the model has no gate, or something else than a gate would learn.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan | None = None,
        *,
        label_smoothing: float = 0.0,
        class_weights: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        adapted = as_adaptive(model, "GateObjective")
        self.plan = plan_for(plan, adapted.space, default="gates")
        if not self.plan.is_of_gate:
            raise ValueError(f"GateObjective: plan {self.plan.name!r} is not for gates; use pliant.Objective")
        self.model = adapted
        self._loss = Loss(task="multiclass", class_dim=1, label_smoothing=label_smoothing, class_weights=class_weights)
        self.terms: dict[str, Tensor] = {}
        self.progress = 0.0
        self._gmacs: dict[tuple[int, ...], list[float]] = {}

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of one batch.

        Args:
            x: images `[B, channels, height, width]`.
            y: labels `[B]`, or probabilities `[B, C]`.

        Raises:
            ValueError: the routes answer with something else than logits `[B, C]`, or the labels do not fit them.
        """
        y = labels_of(y)
        with torch.no_grad(), evaluating(self.model):
            narrowest, features = self.model.seen_by_gate(x)
            answers = [narrowest, *(logits_of(self.model(x, subnet=route)) for route in self.model.routes[1:])]
        if narrowest.dim() != 2:
            raise ValueError(f"GateObjective: got logits {list(narrowest.shape)}, expected [batch, classes]")
        loss = fit(self._loss, narrowest, y)
        if y.is_cpu:
            check_values(loss, narrowest, y)
        scores = gate_of(self.model).raw_scores(features)
        chosen = F.gumbel_softmax(scores, tau=TEMPERATURE, hard=True)
        losses = []
        self.terms = {}
        for term in self.plan.terms:
            if term.start > self.progress:
                continue
            if term.on == "labels":
                logits = (chosen.T.unsqueeze(-1) * torch.stack(answers).float()).sum(0)
                value = loss.labels(logits, y)
            elif term.on == "ease":
                value = F.cross_entropy(scores, self._wanted(narrowest, y))
            else:
                value = (chosen @ chosen.new_tensor(self._costs(x))).mean() ** 2
            losses.append(value * term.weight)
            self.terms[term.name] = losses[-1].detach()
        if not losses:
            raise ValueError(f"plan {self.plan.name!r} has no term that counts at progress {self.progress:.3f}")
        return sum(losses[1:], losses[0])

    def backward(self, x: Tensor, y: Tensor, *, step: Callable[[Tensor], None] = Tensor.backward) -> Tensor:
        """Add the gradients of the loss, see `Objective.backward`; returns the detached loss."""
        loss = self(x, y)
        with torch.autocast(y.device.type, enabled=False):
            step(loss)
        return loss.detach()

    def _wanted(self, narrowest: Tensor, y: Tensor) -> Tensor:
        """Return the route that sandwich gate sparsification wants for every input, `[B]`.

        The narrowest for what that one gets right, and the widest for all else, also for what no route gets right.
        """
        labels = y.argmax(1) if y.is_floating_point() else y
        return (narrowest.argmax(1) != labels).long() * (len(self.model.routes) - 1)

    def _costs(self, x: Tensor) -> list[float]:
        """Return what an image costs on every route, 10^9 multiply-accumulates."""
        shape = tuple(x.shape[1:])
        if shape not in self._gmacs:
            networks = [extract(self.model, route, share=True).eval() for route in self.model.routes]
            self._gmacs[shape] = [count_macs(partial(network, x[:1])) / 1e9 for network in networks]
        return self._gmacs[shape]
