"""`Passes`: the forward passes that a plan takes on one network, and what they leave behind."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from torch import Tensor, nn

from pliant.core.inputs import logits_of
from pliant.core.plan import Plan
from pliant.core.subnet import SubNetSpace

__all__ = ["Outputs", "Passes"]


@dataclass(frozen=True)
class Outputs:
    """What one pass leaves behind: logits as the network gives them, stage outputs `[batch, channels]` each."""

    logits: Tensor
    features: list[Tensor]

    def detach(self) -> Outputs:
        """Return the same values, through which no gradient flows."""
        return Outputs(self.logits.detach(), [feature.detach() for feature in self.features])


class Passes:
    """The passes that some of a plan's sub-networks take, teachers before their students.

    A pass answers for every early exit that it comes by.

    Args:
        plan: with the names of sub-networks resolved.
        space: the sub-networks; none = a plain network, which has one answer.
        subnets: those that are wanted.

    Attributes:
        members: for each pass the sub-networks that it answers for, in the order of their exits; it runs to the last.

    Raises:
        ValueError: two passes would have to wait for each other.
    """

    def __init__(self, plan: Plan, space: SubNetSpace | None, subnets: Collection[str]) -> None:
        self._space = space
        self.members = _grouped(plan, space, subnets) if space is not None else [tuple(subnets)]

    def run(
        self,
        network: nn.Module,
        x: Tensor | Mapping[str, Tensor],
        members: Sequence[str],
        *,
        features: bool,
    ) -> dict[str, Outputs]:
        """Make one pass, and return what each of its members gave, the last of which it runs to."""
        options: dict[str, Any] = {}
        if self._space is not None:
            options = {"subnet": members[-1]} | ({"features": True} if features else {})
            options |= {"exits": True} if len(members) > 1 else {}
        output = network(**x, **options) if isinstance(x, Mapping) else network(x, **options)
        output, stages = output if options.get("features") else (output, [])
        answers = [output]
        if len(members) > 1:
            assert self._space is not None
            answers = [output[(self._space.parse(subnet).exit or 1) - 1] for subnet in members]
        return {subnet: Outputs(logits_of(answer), stages) for subnet, answer in zip(members, answers, strict=True)}


def _grouped(plan: Plan, space: SubNetSpace, subnets: Collection[str]) -> list[tuple[str, ...]]:
    members: dict[str, list[str]] = {}
    of: dict[str, str] = {}
    wanted = [subnet for subnet in plan.passes() if subnet in subnets]
    for subnet in sorted(wanted, key=lambda name: -(space.parse(name).exit or 0)):
        found = next((leader for leader in members if space.answers(space.parse(subnet), space.parse(leader))), subnet)
        members.setdefault(found, []).insert(0, subnet)
        of[subnet] = found
    before = {
        leader: {of[t.teacher] for t in plan.terms if t.teacher in of and of.get(t.student) == leader} - {leader}
        for leader in (of[subnet] for subnet in wanted)
    }
    try:
        return [tuple(members[leader]) for leader in TopologicalSorter(before).static_order()]
    except CycleError as error:
        raise ValueError(
            f"plan {plan.name!r}: the passes of {' and '.join(error.args[1][1:])} teach each other"
        ) from None
