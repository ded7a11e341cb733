"""What holds for every reader and early exits: contracts 1 and 2, and batches that shrink inside its forward."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from families import FAMILIES, Family
from torch import Tensor

import pliant
from pliant.core.inputs import logits_of


def cases(*, classify: bool) -> list[Any]:
    chosen = [family for family in FAMILIES if family.classifies == classify]
    return [pytest.param(family, id=family.name, marks=[pytest.mark.slow] if family.slow else []) for family in chosen]


@torch.no_grad()
@pytest.mark.parametrize("family", cases(classify=True))
def test_exits_in_every_network(family: Family):
    torch.manual_seed(0)
    original = family.source().create().eval()
    model: Any = pliant.adapt_(copy.deepcopy(original), pliant.Exits())
    args, kwargs = family.inputs()

    def run(network: Any, **more: Any) -> Tensor:
        return logits_of(network(*args, **kwargs, **more))

    assert torch.equal(run(model), run(original))
    every = model(*args, exits=True, **kwargs)
    assert len(every) == len(model.subnets) > 1
    for number in range(1, len(every)):
        network = pliant.extract(model, f"exit={number}")
        assert torch.equal(run(network), run(model, subnet=f"exit={number}")), number
        assert sum(p.numel() for p in network.parameters()) < sum(p.numel() for p in original.parameters())

    def first_input_leaves_at_once(number: int, logits: Tensor) -> Tensor:
        return (torch.arange(len(logits)) == 0) & (number == 1)

    logits, exits = model.leave_early(*args, decide=first_input_leaves_at_once, **kwargs)
    assert exits.tolist() == [1, *[len(every)] * (len(logits) - 1)]
    expected = torch.cat([every[0][:1], every[-1][1:]])
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", cases(classify=False))
def test_a_language_model_is_refused(family: Family):
    model = family.source().create()
    with pytest.raises(ValueError, match="answers for every token"):
        pliant.adapt_(model, pliant.Exits())
