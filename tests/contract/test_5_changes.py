"""Contract 5, for every family: whatever happened to the model, a sub-network computes what it should.

What people do to models before and after `adapt_` is tested in tests/composition.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import pliant


@torch.no_grad()
def test_5_a_copy_with_other_weights_switches_by_itself(case):
    model = copy.deepcopy(case.adapted)
    before = case.logits(model, subnet="smallest")
    for tensor in model.parameters():
        tensor.mul_(1.5)
    after = case.logits(model, subnet="smallest")
    assert not torch.equal(after, before)
    case.assert_same(after, case.logits(pliant.extract(model, "smallest")))
    assert torch.equal(case.logits(case.adapted), case.logits(case.original))
    assert not torch.equal(case.logits(model), case.logits(case.original))
    model.half().float().to("cpu")
    case.assert_same(case.logits(model, subnet="smallest"), case.logits(pliant.extract(model, "smallest")))
    assert not torch.equal(case.logits(model, subnet="smallest"), case.logits(model))


@torch.no_grad()
def test_5_a_pass_that_fails_leaves_the_super_net_active(case):
    def fail(module: nn.Module, args: tuple) -> None:
        raise RuntimeError("on purpose")

    block = case.adapted.get_submodule(case.adapted.anatomy.stages[0].blocks[0].path)
    hook = block.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        case.logits(case.adapted, subnet="smallest")
    hook.remove()
    assert case.adapted._pliant_adaptation.switch.at_largest
    assert torch.equal(case.logits(case.adapted), case.logits(case.original))
