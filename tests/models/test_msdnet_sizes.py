"""MSDNets have the sizes that their papers print."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pliant
from pliant.core.macs import count_gmacs, count_params_m
from pliant.models.msdnet import MSDNet, paper_counts


def create(name: str) -> MSDNet:
    with torch.device("meta"):
        model = pliant.create_model(f"pliant:{name}")
    assert isinstance(model, MSDNet)
    return model


def near(figures: list[float]) -> list[float]:
    return pytest.approx(figures, rel=0.005)


@pytest.mark.parametrize(("exits", "layers"), [(4, 10), (5, 15), (6, 21), (7, 28), (8, 36)])
@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_the_cifar_networks_have_the_depths_of_the_paper(data, exits, layers):
    model = create(f"msdnet_{data}_k{exits}")
    assert len(model.steps) == exits
    assert sum(len(step.diagonals) for step in model.steps) == layers


def test_seven_exits_cost_what_table_1_prints():
    """IMTA, Table 1."""
    gmacs, params_m = zip(*paper_counts(create("msdnet_cifar100_k7"), 32), strict=True)
    assert [1e3 * value for value in gmacs] == near([6.86, 14.35, 27.29, 48.45, 76.43, 108.9, 137.3])
    assert list(params_m) == near([0.30, 0.65, 1.11, 1.73, 2.38, 3.05, 3.97])


def test_the_network_for_anytime_prediction_goes_from_15_to_76_million():
    gmacs, _ = zip(*paper_counts(create("msdnet_cifar100_even"), 32), strict=True)
    assert len(gmacs) == 7
    assert [1e3 * gmacs[0], 1e3 * gmacs[-1]] == near([15.1, 75.9])


@pytest.mark.parametrize(
    ("step", "operations"),
    [
        (4, [340, 685, 1008, 1254, 1361]),
        (6, [515, 1171, 1845, 2501, 2742]),
        (7, [616, 1436, 2283, 2967, 3254]),
    ],
)
def test_the_imagenet_networks_cost_what_is_published(step, operations):
    model = create(f"msdnet_imagenet_step{step}")
    gmacs, params_m = zip(*paper_counts(model, 224), strict=True)
    assert [1e3 * value for value in gmacs] == near(operations)
    if step == 4:
        assert list(params_m) == near([4.24, 8.77, 13.07, 16.75, 23.96])
        assert [step.exit.linear.in_features for step in model.steps] == [384, 384, 352, 304, 560]


def test_counting_leaves_the_network_as_it_was():
    model = MSDNet(2, num_classes=3).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert len(paper_counts(model, 32)) == 2
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_an_exit_that_is_gone_cannot_be_counted():
    with pytest.raises(ValueError, match="no exit 1, 2, which counts for the later ones") as error:
        paper_counts(create("msdnet_cifar100_k7").truncated(3), 32)
    assert "\n" not in str(error.value)


def test_a_network_that_ends_at_an_exit_costs_less_than_the_paper_counts():
    model = create("msdnet_cifar100_k7")
    counts = paper_counts(model, 32)
    for number in (1, 3):
        shorter = model.truncated(number)
        assert count_gmacs(shorter, 32) < 0.97 * counts[number - 1][0]
        assert count_params_m(shorter) < counts[number - 1][1]
    # Nothing of the layers before the last exit is left out; the classifiers before it are.
    last = model.truncated(7)
    assert count_gmacs(last, 32) == count_gmacs(model, 32)
    classifiers = sum(count_params_m(step.exit) for step in list(model.steps)[:-1])
    assert count_params_m(last) == pytest.approx(count_params_m(model) - classifiers)


def test_the_first_exit_alone_costs_what_its_convolutions_do():
    model = MSDNet(2, num_classes=10).truncated(1)
    # Two layers would read finer scales; of the one before this exit only the coarsest scale runs.
    assert [tuple(diagonal) for diagonal in model.steps[0].diagonals] == [("scale2",)]
    stem = 32**2 * 16 * 27 + 16**2 * 32 * 16 * 9 + 8**2 * 64 * 32 * 9
    down = 16**2 * 24 * 32 + 8**2 * 12 * 24 * 9  # from scale 1: bottleneck of 2 * 12 channels, then stride 2
    same = 8**2 * 48 * 64 + 8**2 * 12 * 48 * 9
    classifier = 4**2 * 128 * 88 * 9 + 2**2 * 128 * 128 * 9 + 128 * 10
    assert count_gmacs(model, 32) * 1e9 == pytest.approx(stem + down + same + classifier)
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 3 + 4 + 2
