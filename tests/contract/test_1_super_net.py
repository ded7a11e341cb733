"""Contract 1: the full sub-network of an adapted model equals the original, bit for bit."""

from __future__ import annotations

import torch

from pliant.measure.operators import count_operators


@torch.no_grad()
def test_1_the_super_net_is_the_original_bit_for_bit(case):
    expected = case.logits(case.original)
    assert torch.equal(case.logits(case.adapted), expected)
    assert torch.equal(case.logits(case.adapted, subnet="largest"), expected)


@torch.no_grad()
def test_1_the_other_sub_networks_differ_from_it_and_from_each_other(case):
    outputs = [case.logits(case.adapted, subnet=subnet) for subnet in case.subnets]
    assert len(outputs) > 1
    for index, output in enumerate(outputs):
        assert torch.isfinite(output).all()
        assert not any(torch.equal(output, other) for other in outputs[:index])


def test_1_it_runs_the_operators_of_the_original(case):
    assert count_operators(lambda: case.logits(case.adapted)) == count_operators(lambda: case.logits(case.original))
