"""`pliant.predict`: the answers of the slow path, without what nobody asked for."""

from __future__ import annotations

import math

import pytest
import torch

import pliant
from pliant.core.adaptive import AdaptiveModule
from pliant.measure.operators import count_operators
from pliant.policy.confidence import ConfidencePolicy
from pliant.policy.fit import fit_policies
from pliant.policy.runner import all_logits, passes_of

RESNET, MSDNET = "pliant:resnet20", "pliant:msdnet_cifar10_k4"
EXITS = ("exit=1", "exit=2", "exit=3")
BOTH = [pliant.Depth(), pliant.Exits()]
CASES = {
    "exits": (RESNET, [pliant.Exits()], EXITS),
    "collaborating": (RESNET, [pliant.Exits(collaboration="concatenate")], EXITS),
    "some exits": (RESNET, [pliant.Exits()], ("exit=2", "exit=3")),
    "none at the end": (RESNET, [pliant.Exits()], ("exit=1", "exit=2")),
    "msdnet": (MSDNET, [pliant.Exits()], ("exit=1", "exit=2", "exit=3", "exit=4")),
    "cascade": (RESNET, [pliant.Depth()], ("TTT", "TFF", "FFF")),
    "exits of one depth": (RESNET, BOTH, ("depth=TFF,exit=1", "depth=TTF,exit=2", "depth=TTT,exit=3")),
    "exits, then depths": (RESNET, BOTH, ("depth=TFF,exit=1", "depth=TTF,exit=2", "exit=1", "exit=2", "exit=3")),
}


def make(case: str) -> tuple[AdaptiveModule, tuple[str, ...]]:
    name, configs, subnets = CASES[case]
    torch.manual_seed(0)
    model = pliant.adapt_(pliant.create_model(name, num_classes=5), *configs)
    assert isinstance(model, AdaptiveModule)
    model.train()
    with torch.no_grad():
        for _ in range(3):  # statistics that are not those of noise, so that answers differ
            for subnet in {model.space.largest, model.space.smallest}:
                model(images(16, seed=7), subnet=subnet)
        for path, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and module.out_features == 5 and "collab" not in path:
                module.weight.mul_(5)
    return model.eval(), subnets


def images(batch: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 32, 32, generator=generator) * torch.rand(batch, 1, 1, 1, generator=generator) * 2


def policies(model: torch.nn.Module, subnets: tuple[str, ...], **options) -> list[ConfidencePolicy]:
    x, count = images(24, seed=2), len(subnets)
    costs = [float(2**place) for place in range(count)]
    budgets = [costs[0], sum(costs) / count, costs[-1] * 0.6, costs[-1]]
    labels = torch.arange(24) % 5
    return fit_policies(all_logits(model, x, subnets), labels, subnets=subnets, costs=costs, budgets=budgets, **options)


def leaving(subnets: tuple[str, ...], *thresholds: float) -> ConfidencePolicy:
    return ConfidencePolicy(subnets=subnets, thresholds=(*thresholds, -math.inf), num_classes=5)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_all_logits_are_those_of_every_sub_network(case):
    model, subnets = make(case)
    alone = torch.stack([model(images(3), subnet=subnet) for subnet in subnets])
    torch.testing.assert_close(all_logits(model, images(3), subnets), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_it_answers_as_the_slow_path_does(case):
    model, subnets = make(case)
    x, seen = images(20), set()
    for policy in policies(model, subnets, calibrate=True, measure="margin"):
        logits, chosen = pliant.predict(model, x, policy)
        expected, expected_chosen = policy.apply(all_logits(model, x, subnets))
        assert torch.equal(chosen, expected_chosen)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        one_by_one = [pliant.predict(model, image[None], policy) for image in x[:5]]
        assert [int(place) for _, place in one_by_one] == chosen[:5].tolist()
        seen |= set(chosen.tolist())
    assert seen == set(range(len(subnets)))


@pytest.mark.parametrize("case", ["exits", "msdnet", "cascade", "exits, then depths"])
def test_a_batch_that_leaves_early_runs_fewer_operators(case):
    model, subnets = make(case)
    x, count = images(4), len(subnets)
    ran = []
    for stop in range(count):
        policy = leaving(subnets, *(-math.inf if place >= stop else math.inf for place in range(count - 1)))
        assert pliant.predict(model, x, policy)[1].tolist() == [stop] * 4
        ran.append(count_operators(lambda policy=policy: pliant.predict(model, x, policy)).total())
    assert ran == sorted(set(ran))


def test_whoever_leaves_is_not_computed_any_more():
    model, subnets = make("cascade")
    rows = []
    for stage in ("layer1", "layer3"):
        model.get_submodule(stage).register_forward_hook(lambda _m, _i, output: rows.append(len(output)))
    logits = all_logits(model, images(6), subnets)
    rows.clear()
    threshold = logits[0].softmax(dim=1).amax(dim=1).sort(descending=True).values[1].item()
    pliant.predict(model, images(6), leaving(subnets, threshold - 1e-4, math.inf))
    assert rows == [6, 6, 4, 4, 4, 4]


def test_exits_of_one_depth_share_a_pass():
    model, subnets = make("exits, then depths")
    assert [list(map(str, one)) for one in passes_of(model, subnets)] == [
        ["depth=TFF,exit=1", "depth=TTF,exit=2"],
        ["depth=FFF,exit=1", "depth=FFF,exit=2", "depth=FFF,exit=3"],
    ]
    model, subnets = make("exits of one depth")
    assert len(passes_of(model, subnets)) == 1
    assert len(passes_of(model, ("exit=2", "exit=1"))) == 2


def test_the_model_is_put_back():
    model, subnets = make("exits")
    model.train()
    frozen = model.get_submodule("layer1").eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    logits, _ = pliant.predict(model, images(3), leaving(subnets, math.inf, math.inf))
    assert model.training and not frozen.training and not any(module.training for module in frozen.modules())
    assert not logits.requires_grad
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(logits, model.eval()(images(3)))


def test_an_empty_batch_has_no_answers():
    for case in ("exits", "cascade"):
        model, subnets = make(case)
        logits, chosen = pliant.predict(model, images(0), leaving(subnets, 0.5, 0.5))
        assert logits.shape == (0, 5) and chosen.shape == (0,)


def test_what_does_not_fit_is_refused():
    model, subnets = make("exits")
    policy = leaving(subnets, 0.5, 0.5)
    x = images(2)
    with pytest.raises(ValueError, match=r"no sub-network 'exit=4': allowed are exit=1 to exit=3"):
        pliant.predict(model, x, leaving((*subnets, "exit=4"), 0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="this policy is for 6 classes, and the network has 5"):
        pliant.predict(model, x, policy.replace(num_classes=6))
    with pytest.raises(ValueError, match="this CifarResNet has no sub-networks; adapt it first"):
        pliant.predict(pliant.create_model(RESNET), x, policy)
    with pytest.raises(ValueError, match="predict: got a compiled"):
        pliant.predict(torch.compile(model, backend="eager"), x, policy)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the logits of input 1 are not finite"):
        pliant.predict(model, torch.stack([x[0], x[1] * math.nan]), policy)
