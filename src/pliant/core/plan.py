"""The training objective as data: who learns from whom, on what, with which weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from pliant.core.config import Config
from pliant.core.subnet import SubNetSpace

__all__ = ["GATE", "RANDOM", "Plan", "Term"]

RANDOM = "random-"
"""With a number behind it: a sub-network that is drawn anew for every step, another than all that a plan names."""

GATE = "gate"
"""The student of the terms by which a gate learns to choose."""


@dataclass(frozen=True, kw_only=True)
class Term(Config):
    """One line of a plan.

    Attributes:
        student: the sub-network that learns, as text (`largest`, `smallest`, `TTFF`), or `random-1`, `random-2`, ...
            for those that are drawn anew in every step; or `gate`, which learns to choose among its routes.
        teacher: the sub-network it learns from, always detached; none = it learns from the labels.
        on: `labels` (cross-entropy, of sigmoids where outputs and labels ask for them), `logits` (KL divergence of the
            class distributions) or `features` (KL divergence of the softmax over the channels of each pooled stage
            output). A gate learns on `labels` (of what the chosen routes answer), `ease` (cross-entropy of its scores:
            the first route for what that one gets right, else the last) and `cost` (the square of 10^9
            multiply-accumulates an input).
        weight: factor of this term in the loss.
        temperature: divides the logits or features of both sides; the divergence is multiplied by its square.
        top_k: on logits, compare only the classes that the teacher ranks highest; none or more than
            there are classes = all.
        stages: on features, the numbers of the stages that take part, counted from 1; none = all.
        start: fraction of the training after which the term begins to count, in [0, 1).
    """

    student: str
    teacher: str | None = None
    on: Literal["labels", "logits", "features", "ease", "cost"] = "labels"
    weight: float = 1.0
    temperature: float = 1.0
    top_k: int | None = None
    stages: tuple[int, ...] | None = None
    start: float = 0.0

    def validate(self) -> None:
        """Check that the source fits the teacher, and the numbers their ranges."""
        if self.on in ("ease", "cost") and self.student != GATE:
            raise ValueError(f"Term: on={self.on!r} with student={self.student!r}; by these only the {GATE!r} learns")
        if (self.on in ("logits", "features")) != (self.teacher is not None):
            raise ValueError(
                f"Term: on={self.on!r} with teacher={self.teacher!r}; logits and features need one, others have none"
            )
        if self.teacher == self.student:
            raise ValueError(f"Term: {self.student!r} cannot be its own teacher")
        if not self.weight >= 0:
            raise ValueError(f"Term.weight: got {self.weight}, expected at least 0")
        if not self.temperature > 0:
            raise ValueError(f"Term.temperature: got {self.temperature}, expected more than 0")
        if not 0 <= self.start < 1:
            raise ValueError(f"Term.start: got {self.start}, expected a fraction of the training in [0, 1)")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"Term.top_k: got {self.top_k}, expected at least 1")
        if self.stages is not None and (
            list(self.stages) != sorted(set(self.stages)) or min(self.stages, default=0) < 1
        ):
            raise ValueError(f"Term.stages: got {list(self.stages)}, expected rising numbers of stages from 1")

    @property
    def name(self) -> str:
        """For logs and messages: `smallest<-largest/logits`, `largest<-labels`."""
        return f"{self.student}<-{self.on}" if self.teacher is None else f"{self.student}<-{self.teacher}/{self.on}"


@dataclass(frozen=True, kw_only=True)
class Plan(Config):
    """A training objective: the sum of its terms.

    Attributes:
        name: what the plan is called in recipes and tables.
        terms: its lines; a sub-network that several of them name runs once.
    """

    name: str
    terms: tuple[Term, ...]

    def validate(self) -> None:
        """Check that there is something to learn, no line twice, and no circle of teachers."""
        if not self.terms:
            raise ValueError(f"Plan {self.name!r} has no terms: nothing would be learned")
        names = [term.name for term in self.terms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"Plan {self.name!r} has two terms {twice[0]!r}: add their weights instead")
        if self.is_of_gate and any(term.student != GATE for term in self.terms):
            raise ValueError(f"Plan {self.name!r}: a gate learns alone, in a phase of its own")
        self.passes()

    def passes(self) -> tuple[str, ...]:
        """The sub-networks that run, each once, every teacher before its students."""
        order: list[str] = []

        def visit(subnet: str, students: tuple[str, ...]) -> None:
            if subnet in students:
                raise ValueError(f"Plan {self.name!r}: {' <- '.join([*students, subnet])} is a circle of teachers")
            for term in self.terms:
                if term.student == subnet and term.teacher is not None:
                    visit(term.teacher, (*students, subnet))
            if subnet not in order:
                order.append(subnet)

        for term in self.terms:
            visit(term.student, ())
        return tuple(order)

    def resolve(self, space: SubNetSpace) -> Plan:
        """Return the plan with `largest`, `smallest` and other texts replaced by the sub-networks of `space`."""
        return self._renamed(lambda text: text if text == GATE or text.startswith(RANDOM) else str(space.parse(text)))

    @property
    def is_of_gate(self) -> bool:
        """Whether a gate learns; it learns alone."""
        return any(term.student == GATE for term in self.terms)

    @property
    def random(self) -> tuple[str, ...]:
        """The names of the sub-networks that are drawn in every step."""
        return tuple(subnet for subnet in self.passes() if subnet.startswith(RANDOM))

    def drawn(self, subnets: Mapping[str, str]) -> Plan:
        """Return the plan of one step, with sub-networks in place of the names in `random`."""
        return self._renamed(lambda text: subnets.get(text, text))

    def _renamed(self, name: Callable[[str], str]) -> Plan:
        terms = tuple(
            term.replace(student=name(term.student), teacher=None if term.teacher is None else name(term.teacher))
            for term in self.terms
        )
        return self.replace(terms=terms)
