"""A skipped block does not run, and what the stages give can be had: for every reader."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import pliant
from pliant.core.inputs import logits_of
from pliant.core.macs import count_macs
from pliant.measure.operators import count_operators

pytestmark = pytest.mark.filterwarnings("ignore:.* one block, and nothing to skip")


@torch.no_grad()
def test_a_skipped_block_runs_nothing(case):
    model, space = case.adapted, case.adapted.space
    ran: set[str] = set()
    hooks = [
        child.register_forward_hook(lambda *call, path=block.path: ran.add(path))
        for stage in model.anatomy.stages
        for block in stage.blocks
        for child in model.get_submodule(block.path).modules()
        if child is not model.get_submodule(block.path)
    ]
    for subnet in (space.smallest, space.largest):
        ran.clear()
        case.logits(model, subnet=subnet)
        expected = {
            block.path
            for stage, skippable, skips in zip(model.anatomy.stages, space.skippable_blocks, subnet.depth, strict=True)
            for block in stage.blocks[: len(stage.blocks) - skippable * skips]
        }
        assert ran == expected
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def test_the_base_net_runs_fewer_operators_and_no_more_of_any(case):
    base = count_operators(lambda: case.logits(case.adapted, subnet="smallest"))
    full = count_operators(lambda: case.logits(case.adapted))
    assert base.total() < full.total()
    assert all(count <= full[name] for name, count in base.items())
    plain = count_operators(lambda: case.logits(case.original))
    assert full == plain, "being adaptive costs operators"


def test_macs_are_those_of_the_extracted_network_and_fall_with_every_stage_that_skips(case):
    macs = {s: count_macs(lambda s=s: case.logits(case.adapted, subnet=s)) for s in case.subnets}
    largest, smallest = case.adapted.space.largest, case.adapted.space.smallest
    for subnet in (smallest, largest):
        network = pliant.extract(case.adapted, subnet, share=True)
        assert macs[subnet] == count_macs(lambda network=network: case.logits(network))
    assert all(macs[smallest] <= macs[subnet] < macs[largest] for subnet in macs if subnet != largest)


@torch.no_grad()
def test_features_are_the_pooled_outputs_of_the_stages(case):
    model = case.adapted
    outputs: list[torch.Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    stages = model.anatomy.stages
    hooks = [model.get_submodule(stage.blocks[-1].path).register_forward_hook(keep) for stage in stages]
    output, features = model(*case.args, **case.kwargs, subnet="smallest", features=True)
    for hook in hooks:
        hook.remove()
    assert torch.equal(logits_of(output), case.logits(model, subnet="smallest"))
    assert len(outputs) == len(features) == len(stages)
    for stage, output, feature in zip(stages, outputs, features, strict=True):
        assert feature.shape == (len(case.args[0]), stage.channels)
        by_channel = output.movedim(stage.channel_dim, 1).flatten(2)
        torch.testing.assert_close(feature, by_channel.mean(2), rtol=1e-5, atol=1e-6)
