"""The algebra of dimensions: which parts of which dimensions are the same channels, and which of them must stay.

A dimension is a sequence of labels: 768 channels may be 12 heads of 64. A label stands for all the places that must
shrink together. What is added up is united; what is divided is refined, everywhere at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

__all__ = ["Dimension", "Label", "Reason", "Shape", "fix", "fresh", "leaves", "product", "regroup", "unite"]


class Reason:
    """Why channels cannot be cut.

    Attributes:
        text: the rest of the sentence "they cannot be cut: ...".
        joined: dimensions of whose layers a message speaks as well.
    """

    def __init__(self, text: str, joined: Sequence[Dimension] = ()) -> None:
        self.text = text
        self.joined = joined


class Label:
    """Entries that are counted together, wherever they occur.

    Attributes:
        size: how many.
        reason: why they cannot be cut; none where they can be.
    """

    __slots__ = ("_parts", "_same", "reason", "size")

    def __init__(self, size: int, reason: Reason | None = None) -> None:
        self.size = size
        self.reason = reason
        self._same: Label | None = None
        self._parts: tuple[Label, ...] = ()

    def resolve(self) -> tuple[Label, ...]:
        """Return what this label is by now: itself, the one that it was united with, or its parts."""
        label = self
        while label._same is not None:
            label = label._same
        if self is not label:
            self._same = label
        return tuple(leaf for part in label._parts for leaf in part.resolve()) if label._parts else (label,)

    def split(self, outer: int) -> tuple[Label, ...]:
        """Refine into `outer` times the rest; return both."""
        assert self._same is None and not self._parts and self.size % outer == 0
        self._parts = (Label(outer, self.reason), Label(self.size // outer, self.reason))
        return self._parts

    def merge(self, other: Label) -> None:
        """Be one with a label of the same size."""
        assert self.size == other.size
        if other is not self:
            self.reason = self.reason or other.reason
            other._same = self


Dimension = tuple[Label, ...]
"""Outer labels first; a dimension of one entry has none."""

Shape = list[Dimension]


def fresh(sizes: Iterable[int], reason: Reason | None = None) -> Shape:
    """Return dimensions that have nothing to do with any other."""
    return [(Label(size, reason),) if size != 1 else () for size in sizes]


def leaves(dimension: Iterable[Label]) -> Dimension:
    """Return the labels of a dimension as refined as they are by now."""
    return tuple(leaf for label in dimension for leaf in label.resolve())


def product(labels: Iterable[Label]) -> int:
    """Return how many entries labels stand for together."""
    return math.prod(label.size for label in labels)


def fix(dimension: Iterable[Label], reason: Reason) -> None:
    """Say of a dimension that it must stay as it is; the first reason holds."""
    for label in leaves(dimension):
        label.reason = label.reason or reason


class _Queue:
    """Labels still to be looked at, from the outermost; those that were refined on the way come in parts."""

    def __init__(self, labels: Iterable[Label]) -> None:
        self._left = [*reversed(tuple(labels))]

    def __bool__(self) -> bool:
        return bool(self._left)

    def take(self) -> Label:
        first, *others = self._left.pop().resolve()
        self._left += reversed(others)
        return first

    def put_back(self, label: Label) -> None:
        self._left.append(label)


def unite(one: Dimension, other: Dimension, reason: Reason | None = None) -> None:
    """Say of two dimensions of one size that they are the same channels, in the same order.

    Args:
        one: a dimension.
        other: another.
        reason: what to say of labels that do not fit each other, such as 3 times 4 and 2 times 6; they must stay.
    """
    assert product(one) == product(other)
    reason = reason or Reason("they are divided in two ways that do not fit each other", (one, other))
    left, right = _Queue(one), _Queue(other)
    while left:
        a, b = left.take(), right.take()
        if a.size == b.size:
            a.merge(b)
        elif a.size % b.size and b.size % a.size:
            sizes, run = [a.size, b.size], [a, b]
            while sizes[0] != sizes[1]:
                shorter = int(sizes[0] > sizes[1])
                run.append((left, right)[shorter].take())
                sizes[shorter] *= run[-1].size
            fix(run, reason)
        else:
            larger, outer = (a, b.size) if a.size > b.size else (b, a.size)
            larger.split(outer)
            left.put_back(a)
            right.put_back(b)


def regroup(dimensions: Iterable[Dimension], sizes: Sequence[int], reason: Reason | None = None) -> Shape:
    """Return the dimensions of the same entries in a view of other sizes.

    Args:
        dimensions: as many entries as `sizes`, none of which is 0.
        sizes: of the dimensions of the view.
        reason: what to say of labels that the view cuts across; they must stay.
    """
    reason = reason or Reason("a view cuts across them")
    left, coming = _Queue(label for dimension in dimensions for label in dimension), [*reversed(sizes)]
    result: Shape = []
    while coming:
        missing, found, behind = coming.pop(), list[Label](), list[Dimension]()
        while missing != 1:
            label = left.take()
            if missing % label.size == 0:
                found.append(label)
                missing //= label.size
            elif label.size % missing == 0:
                label.split(missing)
                left.put_back(label)
            else:
                first, *behind = _across(label, missing, left, coming, reason)
                found += first
                missing = 1
        result += [tuple(found), *behind]
    return result


def _across(label: Label, missing: int, left: _Queue, coming: list[int], reason: Reason) -> Shape:
    """Fix labels until the view meets a border of theirs again; return new dimensions for what lies before it."""
    run, sizes = [label], [missing]
    while (old := product(run)) != (new := math.prod(sizes)):
        if old < new:
            run.append(left.take())
        else:
            sizes.append(coming.pop())
    fix(run, reason)
    return fresh(sizes, reason)
