"""`predict`: run a model by a policy, so that what nobody asked for is not computed.

Letters of shapes: K sub-networks, B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from pliant.core.adaptive import AdaptiveModule, as_adaptive, num_classes_of
from pliant.core.inputs import images_alone, logits_of
from pliant.core.modes import evaluating
from pliant.core.subnet import SubNet
from pliant.policy.confidence import ConfidencePolicy

__all__ = ["all_logits", "passes_of", "predict"]


def predict(model: nn.Module, x: Tensor, policy: ConfidencePolicy | Literal["gate"]) -> tuple[Tensor, Tensor]:
    """Answer every input with the first sub-network that is sure enough, or with the one that the gate chooses.

    Exits that one pass comes by share it: the batch shrinks at each by the inputs that leave, and when none is left
    the pass ends. A sub-network of another depth is a pass of its own, on the inputs that are still undecided. The
    model runs without gradients and, if it is training, in eval mode meanwhile.

    A gate sends every input its way in the same pass; inputs that go the same way go on together.

    Args:
        model: adaptive.
        x: what the model takes, `[B, ...]`, on its device.
        policy: found for this model, as by `pliant.measure.policies.find_policies`; or `gate`, where the model has one.

    Returns:
        Logits `[B, C]`, and for each input the place of the sub-network that gave them in `policy.subnets`, or in
        `model.routes`, `[B]`.

    Raises:
        ValueError: several inputs, a model without sub-networks or wrapped by torch, a policy for other sub-networks or
            another number of classes than the model has, or answers that are not finite.
    """
    x = images_alone(x, "predict")
    if not isinstance(policy, ConfidencePolicy):
        return _predict_by_gate(model, x, policy)
    passes = passes_of(model, policy.subnets)
    assert isinstance(model, AdaptiveModule)
    policy.check(num_classes=num_classes_of(model))
    answers: Tensor | None = None
    places = torch.zeros(len(x), dtype=torch.long, device=x.device)
    inside, first = torch.arange(len(x), device=x.device), 0
    with _evaluating(model), torch.no_grad():
        for subnets in passes:
            logits, found = _run_pass(model, x, subnets, policy, first)
            last = first + len(subnets) - 1
            done = found < last
            done[~done] = policy.decides(last, logits[~done])
            if answers is None:
                answers = torch.empty_like(logits)
            answers[inside[done]], places[inside[done]] = logits[done], found[done]
            inside, x, first = inside[~done], x[~done], last + 1
            if not len(x):
                break
    assert answers is not None
    return answers, places


def _predict_by_gate(model: nn.Module, x: Tensor, policy: str) -> tuple[Tensor, Tensor]:
    if policy != "gate":
        raise ValueError(f"predict: got policy {policy!r}, expected a pliant.ConfidencePolicy or 'gate'")
    adaptive = as_adaptive(model, "predict")
    with _evaluating(model), torch.no_grad():
        return adaptive.gated(x)


def _run_pass(
    model: AdaptiveModule, x: Tensor, subnets: Sequence[SubNet], policy: ConfidencePolicy, first: int
) -> tuple[Tensor, Tensor]:
    """Run inputs until they leave or the pass ends; `first` is the place of its first sub-network in the policy.

    Returns:
        Logits `[B, C]`, and the place at which each input left or came to the end, `[B]`.
    """
    if len(subnets) == 1:
        logits = logits_of(model(x, subnet=subnets[0]))
        return logits, torch.full((len(x),), first, device=x.device)
    place_of = {subnet.exit or 0: first + place for place, subnet in enumerate(subnets)}

    def decide(exit_number: int, logits: Tensor) -> Tensor:
        return policy.decides(place_of[exit_number], logits)

    logits, exits = model.leave_early(x, decide=decide, at=place_of, subnet=subnets[-1])
    places = torch.tensor([place_of.get(number, -1) for number in range(max(place_of) + 1)], device=x.device)
    return logits, places[exits]


def passes_of(model: nn.Module, subnets: Sequence[str | SubNet]) -> list[tuple[SubNet, ...]]:
    """Divide sub-networks, in their order, into those that one forward pass comes by.

    Raises:
        ValueError: a model without sub-networks, or without one of these.
    """
    space = as_adaptive(model, "predict").space
    passes: list[list[SubNet]] = []
    for subnet in map(space.parse, subnets):
        before = passes[-1][-1] if passes else None
        if before is not None and before != subnet and space.answers(before, on_the_way_to=subnet):
            passes[-1].append(subnet)
        else:
            passes.append([subnet])
    return [tuple(subnets) for subnets in passes]


def all_logits(model: nn.Module, x: Tensor, subnets: Sequence[str | SubNet]) -> Tensor:
    """Return what every sub-network answers to every input, `[K, B, C]`: for finding and checking policies.

    Args:
        model: adaptive; it runs without gradients and, if it is training, in eval mode meanwhile.
        x: what the model takes, `[B, ...]`, on its device.
        subnets: which, in the order of the answers.

    Raises:
        ValueError: a model without sub-networks, or without one of these.
    """
    answers: list[Tensor] = []
    passes = passes_of(model, subnets)
    with _evaluating(model), torch.no_grad():
        for together in passes:
            if len(together) == 1:
                answers.append(logits_of(model(x, subnet=together[0])))
            else:
                exits = model(x, subnet=together[-1], exits=True)
                answers += [exits[subnet.exit - 1] for subnet in together if subnet.exit is not None]
    return torch.stack(answers)


def _evaluating(model: nn.Module) -> AbstractContextManager[None]:
    """Put a model that is training in eval mode meanwhile.

    One that is not stays as it is, as in `model(x)`: to ask each of a thousand modules takes a twentieth of the time
    that one small image takes.
    """
    return evaluating(model) if model.training else nullcontext()
