"""Weights that are averaged: the BatchNorm statistics of every sub-network are those of its own activations."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

import pliant

CONFIGS: dict[str, tuple[Any, ...]] = {
    "depth": (pliant.Depth(),),
    "exits": (pliant.Exits(classifier="convolutions"),),
    "collaborating exits": (pliant.Exits(collaboration="concatenate"),),
    "width": (pliant.Width(),),
    "depth and exits": (pliant.Depth(), pliant.Exits(classifier="convolutions")),
    "depth and width": (pliant.Depth(), pliant.Width()),
}
BATCHES = [torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    network = pliant.create_model("pliant:resnet20", shortcut="projection")
    model: Any = pliant.adapt_(network, *CONFIGS[request.param]).train()
    for _ in range(3):  # statistics that are neither those of the beginning nor those of the batches
        for subnet in (None, "smallest"):
            model(5 * BATCHES[0], subnet=subnet)
    return model


def statistics(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def test_update_bn_and_recalibrate_fill_every_norm(model):
    average = AveragedModel(model)
    average.update_parameters(model)
    recalibrated = copy.deepcopy(average.module)
    update_bn(BATCHES, average)
    assert pliant.recalibrate_(recalibrated, BATCHES) == 48
    expected = statistics(recalibrated)
    for name, found in statistics(average.module).items():
        if name.endswith("num_batches_tracked"):
            assert found > 0, name
        else:  # means of fewer or more passes over the same images, in another order
            torch.testing.assert_close(found, expected[name], rtol=0.05, atol=0.05, msg=name)
    for subnet in model.space.with_own_norms:
        plain = pliant.extract(average.module, subnet).train()
        update_bn(BATCHES, plain)
        own = statistics(pliant.extract(recalibrated, subnet))
        first = next(name for name in own if name.endswith("layer1.0.bn2.running_mean"))
        torch.testing.assert_close(own[first], plain.get_buffer(first))


def test_statistics_that_were_reset_are_kept_until_a_batch_comes(model):
    before = statistics(model)
    late = [name for name in before if any(part in name for part in (".skip.", ".widths.", ".exit.convolutions."))]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    after = statistics(model)
    assert all(torch.equal(after[name], before[name]) for name in late)
    model.eval()
    if not late:
        return
    for call in (
        lambda: model(BATCHES[0], subnet="smallest", exits=bool(model.space.exit_stages)),
        lambda: pliant.extract(model, "largest"),
        lambda: pliant.save(model, "unused"),
    ):
        with pytest.raises(ValueError, match=r"were reset .* pliant\.recalibrate_"):
            call()
    pliant.recalibrate_(model, BATCHES)
    model(BATCHES[0], subnet="smallest")


def test_a_training_goes_on_after_a_reset(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    for _ in range(2):
        pliant.Objective(model).backward(BATCHES[0], torch.arange(16) % 10)
    model.eval()
    with torch.no_grad():
        for subnet in ("smallest", "largest"):
            assert model(BATCHES[0], subnet=subnet).isfinite().all()
