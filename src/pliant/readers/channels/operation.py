"""One call of one operator of torch, as the rules see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pliant.readers.channels.labels import Dimension, Reason, Shape

__all__ = ["Operation", "Rule", "table"]


@dataclass
class Operation:
    """One call of one operator.

    Attributes:
        name: of the operator in torch's library of operators, without the underscore of in-place operators.
        values: its arguments by name.
        outputs: the tensors that it returned.
        where: the layer that it ran in, for messages.
        known: tells the dimensions of a tensor.
        is_weight: whether a tensor is a parameter or a buffer.
        made: is told the dimension of a weight that gives its layer's output.
    """

    name: str
    values: dict[str, Any]
    outputs: list[Tensor]
    where: str
    known: Callable[[Tensor], Shape]
    is_weight: Callable[[Tensor], bool]
    made: Callable[[Dimension], None]

    @property
    def inputs(self) -> list[Tensor]:
        """All tensors among the arguments, in order."""
        return list(_tensors(list(self.values.values())))

    def shapes(self, *names: str) -> Iterator[Shape]:
        """Yield the dimensions of arguments, for those that are tensors."""
        for name in names:
            if isinstance(self.values.get(name), Tensor):
                yield self.known(self.values[name])

    def place(self, name: str = "dim", rank: int | None = None) -> int:
        """Return a dimension that is given as an argument, counted from the front."""
        return self.values[name] % (self.inputs[0].dim() if rank is None else rank)

    def reason(self, what: str, *joined: Dimension) -> Reason:
        """Return a reason that names this operator and its layer."""
        return Reason(f"{self.name} in {self.where} {what}", joined)


Rule = Callable[[Operation], list[Shape] | None]
"""Unites or fixes labels of the inputs of a call and returns the dimensions of its outputs, or of the first of them.

None says that the rule does not know this form of the operator.
"""


def table(rules: dict[Rule, str]) -> dict[str, Rule]:
    """Turn rules with the names of their operators into a table by name."""
    return {name: rule for rule, names in rules.items() for name in names.split()}


def _tensors(values: list[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(list(value))
