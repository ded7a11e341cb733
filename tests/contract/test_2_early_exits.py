"""Contract 2, for early exits: one pass answers as the sub-networks that end at its exits do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytestmark = pytest.mark.axis("exits")


@torch.no_grad()
def test_2_one_pass_gives_the_answers_of_all_exits(case):
    every = case.adapted(*case.args, **case.kwargs, exits=True)
    assert len(every) == len(case.adapted.space.exit_stages) > 1
    for number, answer in enumerate(every[:-1], start=1):
        assert torch.equal(answer, case.logits(case.adapted, subnet=f"exit={number}"))
    assert torch.equal(every[-1], case.logits(case.original))


@torch.no_grad()
def test_2_an_input_that_leaves_early_is_answered_by_its_exit(case):
    model = case.adapted
    last = len(model.space.exit_stages)

    def first_input_leaves_at_once(number: int, logits: Tensor) -> Tensor:
        return (torch.arange(len(logits)) == 0) & (number == 1)

    logits, exits = model.leave_early(*case.args, decide=first_input_leaves_at_once, **case.kwargs)
    assert exits.tolist() == [1, *[last] * (len(logits) - 1)]
    expected = torch.cat([case.logits(model, subnet="exit=1")[:1], case.logits(case.original)[1:]])
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)
