"""The algebra of dimensions."""

from __future__ import annotations

import pytest

from pliant.readers.channels.labels import Dimension, Label, Reason, fix, fresh, leaves, regroup, unite


def one(size: int) -> Dimension:
    return fresh([size])[0]


def sizes(dimension: Dimension) -> list[int]:
    return [label.size for label in leaves(dimension)]


def fixed(dimension: Dimension) -> list[bool]:
    return [label.reason is not None for label in leaves(dimension)]


def test_what_is_united_is_one() -> None:
    a, b, c = one(8), one(8), one(8)
    unite(a, b)
    unite(b, c)
    assert leaves(a) == leaves(b) == leaves(c)
    fix(c, Reason("so"))
    assert fixed(a) == [True]


def test_a_view_refines_all_that_was_united_before() -> None:
    stream, other = one(768), one(768)
    unite(stream, other)
    assert [sizes(dimension) for dimension in regroup([one(5), stream], (5, 12, 64))] == [[5], [12], [64]]
    assert sizes(other) == [12, 64]
    assert leaves(other) == leaves(stream)


def test_a_view_that_joins_keeps_what_it_joins() -> None:
    heads, inner = one(12), one(64)
    (joined,) = regroup([heads, inner], (768,))
    assert leaves(joined) == (*heads, *inner)


def test_dimensions_of_one_entry_have_no_labels() -> None:
    channels = one(6)
    assert regroup([(), channels, ()], (1, 6)) == [(), channels]


@pytest.mark.parametrize("swap", [False, True])
def test_uniting_refines_the_coarser_side(swap: bool) -> None:
    coarse, fine = one(2304), (*one(3), *one(12), *one(64))
    unite(*((fine, coarse) if swap else (coarse, fine)))
    assert sizes(coarse) == [3, 12, 64]
    assert leaves(coarse) == leaves(fine)


def test_parts_keep_the_reason_of_the_whole() -> None:
    whole = one(8)
    fix(whole, Reason("first"))
    outer, _ = regroup([whole], (2, 4))
    fix(outer, Reason("second"))
    assert [label.reason.text for label in leaves(whole) if label.reason] == ["first", "first"]


def test_divisions_that_do_not_fit_stay_and_what_lies_around_them_does_not() -> None:
    left, right = (*one(5), *one(3), *one(4), *one(7)), (*one(5), *one(2), *one(6), *one(7))
    unite(left, right)
    assert fixed(left) == [False, True, True, False]
    assert fixed(right) == [False, True, True, False]
    assert leaves(left)[0] is leaves(right)[0]
    assert leaves(left)[3] is leaves(right)[3]


def test_a_view_across_labels_fixes_those_alone() -> None:
    labels = [one(5), (*one(3), *one(4)), one(7)]
    first, rows, columns, last = regroup(labels, (5, 2, 6, 7))
    assert (first, last) == (labels[0], labels[2])
    assert [*fixed(labels[1]), *fixed(rows), *fixed(columns)] == [True] * 4
    assert sizes(rows) == [2] and sizes(columns) == [6]


def test_a_view_across_labels_in_the_middle_of_a_dimension() -> None:
    channels = one(2)
    found = regroup([channels, one(9), one(4), one(11)], (12, 6, 11))
    assert [sizes(dimension) for dimension in found] == [[2, 6], [6], [11]]
    assert [fixed(dimension) for dimension in found] == [[False, True], [True], [False]]


def test_a_label_that_occurs_twice_is_divided_once() -> None:
    channels = one(6)
    found = regroup([channels, channels], (2, 3, 2, 3))
    assert found[0] == found[2] and found[1] == found[3]
    assert len(set(leaves(channels))) == 2


def test_a_dimension_can_be_united_with_a_part_of_itself_turned_round() -> None:
    """It cannot be the same, and ends."""
    a, b = Label(6), Label(2)
    unite((a, b), (b, a))
    assert all(fixed((a,)))
