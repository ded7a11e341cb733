"""Sub-networks that a step draws: from any number of them, each equally often."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

import pliant
from pliant.core.plan import Plan, Term
from pliant.core.subnet import SubNetSpace
from pliant.plans import build_plan
from pliant.train import draws
from pliant.train.draws import Draws

CPU = torch.device("cpu")
SPACE = SubNetSpace((1, 2, 1), (2, 3))


@pytest.mark.parametrize("most_listed", [4096, 0], ids=["shuffled", "by number"])
def test_each_of_the_others_is_drawn_equally_often_and_none_twice(most_listed, monkeypatch):
    monkeypatch.setattr(draws, "MOST_LISTED", most_listed)
    named = [SPACE.smallest, SPACE.subnets[5], SPACE.largest]
    drawing, counts, steps = Draws(SPACE, named), Counter(), 3000
    torch.manual_seed(0)
    for _ in range(steps):
        drawn = drawing.draw(3, CPU)
        assert len(set(drawn)) == 3
        counts.update(drawn)
    assert counts.keys() == set(SPACE) - set(named)
    expected = 3 * steps / (len(SPACE) - 3)
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


@pytest.mark.parametrize("stages", [32, 100])
def test_of_so_many_that_no_list_holds_them(stages):
    space = SubNetSpace((1,) * stages)
    drawing = Draws(space, [space.smallest, space.largest])
    torch.manual_seed(0)
    drawn = [subnet for _ in range(200) for subnet in drawing.draw(4, CPU)]
    assert len(set(drawn)) == 800 and all(subnet in space for subnet in drawn)
    for stage in range(stages):
        assert 300 < sum(subnet.depth[stage] for subnet in drawn) < 500, "a stage skips every other time"
    torch.manual_seed(0)
    assert drawing.draw(4, CPU) == drawn[:4]


def test_all_are_drawn_where_no_other_is_left():
    space = SubNetSpace((1, 1))
    drawn = Draws(space, [space.smallest, space.largest]).draw(2, CPU)
    assert set(map(str, drawn)) == {"TF", "FT"}


def test_a_training_step_draws_from_four_thousand_million(huge):
    terms = (Term(student="random-1"), Term(student="random-2", teacher="random-1", on="logits"))
    plan = Plan(name="two", terms=(Term(student="largest"), *terms))
    objective, ran = pliant.Objective(huge.train(), plan), []
    step = objective._step
    objective._step = lambda drawn: ran.append(drawn.passes()) or step(drawn)  # type: ignore[method-assign]
    torch.manual_seed(0)
    for _ in range(2):
        objective.backward(torch.randn(2, 3, 32, 32), torch.tensor([0, 2]))
    assert all(len(set(names)) == 3 and "F" * 32 in names for names in ran) and ran[0] != ran[1]


def test_plans_are_built_for_four_thousand_million_depths_of_several_widths(huge):
    space = SubNetSpace(huge.space.skippable_blocks, widths=((0.5,), (1.0,)))
    plan = build_plan("adn-sum+sandwich", space, random=3)
    assert plan.random == ("random-1", "random-2", "random-3") and len(space) == 2**33
    assert len(set(Draws(space, [space.largest]).draw(3, CPU))) == 3
    assert [term.student for term in build_plan("adn", huge.space).terms][-1] == "T" * 32
