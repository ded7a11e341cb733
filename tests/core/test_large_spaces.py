"""Spaces that are too large to list: the same order, texts and answers as a list would give, and no list."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import pickle
import random
import sys
import time

import pytest

from pliant.core.sequence import SubNets
from pliant.core.subnet import SubNet, SubNetSpace
from pliant.core.switch import MOST_KNOWN, Switch

LARGE = SubNetSpace(skippable_blocks=(1, 2) * 16)
"""2^32 depths."""
LARGER = SubNetSpace((1,) * 80, (20, 40, 80), tuple(itertools.product((0.25, 0.5, 1.0), repeat=4)))


def enumerated(space: SubNetSpace) -> list[SubNet]:
    """All sub-networks of a space, listed and sorted: what the order is."""

    def size(subnet: SubNet) -> tuple[int, float, int, str]:
        run = sum(count for count, skip in zip(space.skippable_blocks, subnet.depth, strict=True) if not skip)
        return subnet.exit or 0, sum(subnet.width), run, str(subnet)

    depths = list(itertools.product(*((True, False) if count else (False,) for count in space.skippable_blocks)))
    exits = range(1, len(space.exit_stages) + 1) if space.exit_stages else (None,)
    every = set()
    for depth, exit_, width in itertools.product(depths, exits, space.widths or [()]):
        stages = space.exit_stages[exit_ - 1] if exit_ and depth else len(depth)
        every.add(SubNet(depth[:stages] + (False,) * (len(depth) - stages), exit_, width))
    return sorted(every, key=size)


def some_spaces() -> list[SubNetSpace]:
    """Depths, exits and widths in every combination, of random sizes."""
    rng = random.Random(0)
    spaces = []
    for axes in itertools.product((False, True), repeat=3):
        for _ in range(15):
            stages = rng.randint(1, 5)
            blocks = tuple(rng.choice((0, 1, 1, 2, 3, 7)) for _ in range(stages)) if axes[0] else ()
            ends = sorted(rng.sample(range(1, stages + 1), rng.randint(1, stages)))
            choices = [*sorted(rng.sample((0.1, 0.2, 0.25, 0.3, 0.5, 0.55, 0.75), 2)), 1.0]
            widths = list(itertools.product(choices, repeat=rng.randint(1, 3)))
            if rng.random() < 0.5:
                rng.shuffle(widths)
            spaces.append(SubNetSpace(blocks, tuple(ends) if axes[1] else (), tuple(widths) if axes[2] else ()))
    return spaces


@pytest.mark.parametrize("space", some_spaces(), ids=str)
def test_the_order_is_that_of_a_sorted_list(space):
    expected = enumerated(space)
    assert list(space.subnets) == expected == [space.subnets[place] for place in range(len(expected))]
    assert list(reversed(space.subnets)) == expected[::-1]
    assert len(space.subnets) == len(space) == space.num_subnets == len(expected)
    assert [space.subnets.index(subnet) for subnet in expected] == list(range(len(expected)))
    assert space.subnets == tuple(expected) and hash(space.subnets) == hash(tuple(expected))


@pytest.mark.parametrize("space", some_spaces(), ids=str)
def test_every_text_is_read_and_nothing_else_is_there(space):
    expected = set(enumerated(space))
    for subnet in expected:
        texts = subnet.texts
        free = [axis for axis in texts if texts[axis] == space.largest.texts[axis]]
        for count in range(min(len(free), len(texts) - 1) + 1):
            for left_out in itertools.combinations(free, count):
                kept = [f"{axis}={text}" for axis, text in texts.items() if axis not in left_out]
                assert space.parse(",".join(kept)) == space.parse(",".join(kept[::-1])) == subnet
        assert space.parse(str(subnet)) == subnet and subnet in space and subnet in space.subnets
        if len(texts) == 1:
            assert space.parse(*texts.values()) == subnet
    others = itertools.product(
        itertools.product((True, False), repeat=len(space.skippable_blocks)),
        (None, *range(len(space.exit_stages) + 2)),
        {(), *space.widths, (0.9,) * 2},
    )
    assert {subnet for subnet in itertools.starmap(SubNet, others) if subnet in space} == expected


def test_a_slice_is_a_sequence_again():
    every = SubNetSpace((1, 2, 1), (2, 3)).subnets
    listed = tuple(every)
    for part in (slice(3), slice(2, 9, 3), slice(None, None, -1), slice(-1, 0, -2), slice(5, 5), slice(-4, 99)):
        assert isinstance(every[part], SubNets)
        assert every[part] == listed[part] and len(every[part]) == len(listed[part])
        assert tuple(every[part]) == tuple(every[part][place] for place in range(len(listed[part])))
        assert [subnet in every[part] for subnet in listed] == [subnet in listed[part] for subnet in listed]
        assert bool(every[part]) == bool(listed[part])
    assert every[2:5].index(listed[3]) == 1 and every[::-1].index(listed[0]) == len(listed) - 1
    with pytest.raises(ValueError, match="expected one of SubNets"):
        every[2:5].index(listed[0])
    for index in (len(listed), -len(listed) - 1):
        with pytest.raises(IndexError, match=f"got index {index}, expected -{len(listed)} to {len(listed) - 1}"):
            every[index]
    with pytest.raises(IndexError, match="got index 0, expected none"):
        every[5:5][0]


def test_equality_is_that_of_a_tuple():
    space = SubNetSpace((1, 1))
    assert space.subnets == tuple(space) and tuple(space) == space.subnets == space.subnets[:]
    assert space.subnets != tuple(space)[1:] and space.subnets != space.subnets[::-1] and space.subnets != list(space)
    assert SubNetSpace((2, 2)).subnets == space.subnets != SubNetSpace((2, 1)).subnets
    assert LARGE.subnets == copy.deepcopy(LARGE).subnets != LARGE.subnets[1:]
    assert LARGE.subnets != SubNetSpace((2, 4) * 16).subnets, "so many are not compared one by one"
    with pytest.raises(TypeError, match="got 4294967296 sub-networks, expected at most"):
        hash(LARGE.subnets)


def test_it_prints_its_ends():
    assert repr(SubNetSpace((1,)).subnets) == "SubNets(2: T, F)"
    assert repr(SubNetSpace((1,) * 4).subnets) == "SubNets(16: TTTT, FTTT, ..., FFFF)"
    assert repr(LARGE.subnets).startswith("SubNets(4294967296: TTTT")


def test_so_many_cost_nothing_until_one_is_asked_for():
    start = time.perf_counter()
    space = SubNetSpace(skippable_blocks=(1, 2) * 16)  # anew: nothing of it is computed
    every = space.subnets
    assert len(every) == len(space) == 2**32
    assert every[0] == space.smallest == space.parse("T" * 32) and every[-1] == space.largest == space.parse("F" * 32)
    middle = every[2**31]
    assert middle in every and middle in space and every.index(middle) == 2**31 and space.parse(str(middle)) == middle
    assert SubNet(depth=(True,) * 31) not in every
    assert list(itertools.islice(every, 3)) == list(every[:3]) == [every[0], every[1], every[2]]
    assert next(reversed(every)) == space.largest
    assert repr(pickle.loads(pickle.dumps(every))) == repr(copy.deepcopy(every)) == repr(every)
    # A list of so many takes hours; no clock is that busy.
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("space", [LARGE, LARGER])
def test_the_order_of_a_large_space_ascends_wherever_one_looks(space):
    rng = random.Random(0)

    def size(subnet):
        run = sum(count for count, skips in zip(space.skippable_blocks, subnet.depth, strict=True) if not skips)
        return subnet.exit or 0, sum(subnet.width), run, str(subnet)

    for place in (0, space.num_subnets - 2, *(rng.randrange(space.num_subnets - 1) for _ in range(200))):
        one, next_ = space.subnets[place], space.subnets[place + 1]
        assert size(one) < size(next_)
        assert (space.place(one), space.place(next_)) == (place, place + 1)


def test_more_than_python_counts():
    every = LARGER.subnets
    assert LARGER.num_subnets == 81 * (2**20 + 2**40 + 2**80) > sys.maxsize
    assert every and LARGER and every[-1] == LARGER.largest in every and every[LARGER.num_subnets - 1] == every[-1]
    assert next(iter(every)) == every[0] == LARGER.smallest and next(reversed(every)) == every[-1]
    for counted in (LARGER, every):
        with pytest.raises(OverflowError, match=f"{LARGER.num_subnets} sub-networks .* use space.num_subnets"):
            len(counted)


def test_some_evenly_spaced():
    for every in (LARGE.subnets, LARGER.subnets):
        some = every.evenly_spaced(9)
        assert len(some) == 9 and (some[0], some[-1]) == (every[0], every[-1])
        places = [every.index(subnet) for subnet in some]
        steps = [after - before for before, after in itertools.pairwise(places)]
        assert max(steps) - min(steps) <= 1 and some == every.evenly_spaced(9)
    few = SubNetSpace((1, 1)).subnets
    assert few.evenly_spaced(9) == few.evenly_spaced(4) == tuple(few)
    with pytest.raises(ValueError, match="count: got 1, expected at least 2"):
        few.evenly_spaced(1)


def test_what_is_no_sub_network_is_refused_with_what_is_allowed():
    for wrong in ("T" * 31, SubNet(depth=(True,) * 31), SubNet(depth=LARGE.largest.depth, exit=1), 5):
        with pytest.raises(ValueError, match=r"no sub-network .* allowed are 32 letters") as error:
            LARGE.parse(wrong)
        assert str(wrong) in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400
    for wrong in (SubNet(width=[0.5] * 4), SubNet(exit=1.5), SubNet(depth=[True] * 80)):  # type: ignore[arg-type]
        assert wrong not in LARGER and dataclasses.replace(LARGER.largest, exit=1.0) not in LARGER


def test_what_is_skipped_behind_an_exit_makes_no_difference():
    space = SubNetSpace((1, 0, 2), (1, 3))  # the second stage has nothing to skip
    assert str(space.parse("depth=TTT,exit=1")) == str(space.parse(SubNet((True,) * 3, 1))) == "depth=TFF,exit=1"
    assert SubNet((True,) * 3, 1) not in space
    with pytest.raises(ValueError, match="stage 2 has nothing to skip"):
        space.parse("depth=TTT,exit=2")


def test_a_space_has_the_sub_networks_of_another():
    spaces = [SubNetSpace((1, 0, 2), (1, 3)), SubNetSpace((1, 0, 2), (2, 3)), SubNetSpace((1, 1, 2), (1, 3))]
    spaces += [SubNetSpace((1, 0, 2)), SubNetSpace((), (1, 3)), SubNetSpace((), (2, 3)), SubNetSpace((), (1, 2, 3))]
    spaces += [SubNetSpace(widths=((0.5,), (1.0,))), SubNetSpace(widths=((0.25,), (1.0,)))]
    for one, other in itertools.product(spaces, repeat=2):
        assert one.has_same_subnets(other) == (set(one) == set(other))


def test_a_switch_reads_a_text_once_and_forgets_the_oldest(monkeypatch):
    switch, read = Switch(LARGE), []
    parse = SubNetSpace.parse
    monkeypatch.setattr(SubNetSpace, "parse", lambda space, subnet: read.append(subnet) or parse(space, subnet))

    def skips(subnet: str | SubNet) -> bool:
        with switch.running(subnet):
            return switch.skips(0)

    first, other = str(LARGE.smallest), LARGE.subnets[1]
    assert skips(first) and skips(first) and not skips(other) and not skips(other)
    assert read == [first, other]
    for subnet in LARGE.subnets[2 : MOST_KNOWN + 2]:
        skips(subnet)
    assert len(switch._known) == MOST_KNOWN
    read.clear()
    assert skips(first) and read == [first], "it was the oldest"
    for wrong in ("T" * 31, SubNet(depth=[True] * 32), ["T" * 32], 3):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="no sub-network"):
            skips(wrong)  # type: ignore[arg-type]
    assert len(switch._known) == MOST_KNOWN
