"""A gate learns to choose the width, and nothing else learns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pliant
from pliant.checkpoint import read_info
from pliant.core.adaptive import AdaptiveModule
from pliant.core.macs import count_gmacs
from pliant.data import ImageData
from pliant.plans import build_plan
from pliant.train.engine import train
from pliant.train.gates import gate_of
from pliant.train.recipe import Recipe

Tiny = Callable[..., Recipe]

STAGE_ONE: dict[str, Any] = {
    "model": {"name": "pliant:resnet20", "options": {"shortcut": "projection"}},
    "adapt": {"depth": None, "width": {"choices": [0.5, 0.75, 1.0], "gate": {"behind": 1}}},
    "plan": {"name": "sandwich", "random": 1},
}
STAGE_TWO: dict[str, Any] = {"epochs": 2, "learns": "gates", "plan": {"name": "gates", "cost": 10.0}}


@pytest.fixture
def model() -> AdaptiveModule:
    torch.manual_seed(0)
    network = pliant.create_model("pliant:resnet20", num_classes=10, shortcut="projection")
    pliant.adapt_(network, pliant.Width(choices=(0.5, 0.75, 1.0), gate=pliant.Gate()))
    x, _ = batch()
    for subnet in network.train().subnets:
        network(x, subnet=subnet)
    return network.eval()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(32, 3, 16, 16, generator=generator), torch.randint(10, (32,), generator=generator)


def test_the_terms_are_those_of_the_paper(model: AdaptiveModule) -> None:
    x, y = batch()
    objective = pliant.GateObjective(model)
    torch.manual_seed(7)
    total = objective(x, y)

    with torch.no_grad():
        routes = torch.stack([model(x, subnet=route) for route in model.routes])
        scores = gate_of(model).choose(model.seen_by_gate(x)[1])
        torch.manual_seed(7)
        places = F.gumbel_softmax(scores, tau=1, hard=True).argmax(1)
        task = F.cross_entropy(routes[places, torch.arange(len(x))], y)
        wanted = torch.where(routes[0].argmax(1) == y, 0, 2)
        ease = F.cross_entropy(scores, wanted)
        gmacs = torch.tensor([count_gmacs(pliant.extract(model, route), 16) for route in model.routes])
        cost = 0.5 * gmacs[places].mean() ** 2
    expected = {"gate<-labels": task, "gate<-ease": ease, "gate<-cost": cost}
    assert len(places.unique()) > 1, "the test needs routes that differ"
    assert len(wanted.unique()) > 1, "the test needs easy and hard images"
    for name, value in expected.items():
        torch.testing.assert_close(objective.terms[name], value, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(total, sum(expected.values()))


def test_images_need_not_be_square(model: AdaptiveModule) -> None:
    """Two halves of an image cost half of it each, whichever came first."""
    objective = pliant.GateObjective(model)
    costs = []
    for x in (torch.randn(4, 3, 16, 16), torch.randn(4, 3, 32, 16)):
        torch.manual_seed(7)
        scores = gate_of(model).raw_scores(model.seen_by_gate(x)[1])
        places = F.gumbel_softmax(scores, hard=True).argmax(1)
        torch.manual_seed(7)
        objective(x, torch.zeros(4, dtype=torch.long))
        gmacs = torch.tensor([count_gmacs(pliant.extract(model, route), 16) for route in model.routes])
        costs.append(objective.terms["gate<-cost"].item() / (0.5 * gmacs[places].mean().item() ** 2))
    assert costs == pytest.approx([1, 4], rel=0.01)


def test_the_gate_alone_gets_a_gradient_from_every_term(model: AdaptiveModule) -> None:
    x, y = batch()
    for term in pliant.GateObjective(model).plan.terms:
        model.zero_grad()
        plan = pliant.Plan(name="one", terms=(term.replace(weight=1e4),))
        pliant.GateObjective(model, plan).backward(x, y)
        assert gate_of(model).choose.weight.grad.abs().sum() > 0, term.name
        others = [name for name, p in model.named_parameters() if p.grad is not None and "choose" not in name]
        assert not others


def test_cost_makes_the_gate_choose_narrow(model: AdaptiveModule) -> None:
    def average_place(cost: float) -> float:
        choose = gate_of(model).choose
        torch.manual_seed(1)
        choose.reset_parameters()
        objective = pliant.GateObjective(model, build_plan("gates", model.space, cost=cost))
        optimizer = torch.optim.SGD(choose.parameters(), lr=0.1)
        for _ in range(40):
            optimizer.zero_grad()
            objective.backward(*batch())
            optimizer.step()
        return pliant.predict(model, batch()[0], policy="gate")[1].float().mean().item()

    assert average_place(1e6) < average_place(0.0)


def test_noise_belongs_to_training_alone(model: AdaptiveModule) -> None:
    x, y = batch()
    objective = pliant.GateObjective(model).train()
    assert objective(x, y) != objective(x, y)
    first = pliant.predict(model, x, policy="gate")[1]
    assert all(pliant.predict(model, x, policy="gate")[1].equal(first) for _ in range(5))


def test_training_the_gate_leaves_all_else_bit_for_bit(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    result = train(tiny(**STAGE_ONE, then=[STAGE_TWO]), data=images, out=tmp_path / "run", log=None)
    before, after = pliant.load(tmp_path / "run" / "phase-1").state_dict(), result.model.state_dict()
    changed = [name for name in after if not torch.equal(before[name], after[name])]
    assert changed == ["layer1.2.gate.choose.weight"]
    assert {"loss_gate<-labels", "loss_gate<-ease", "loss_gate<-cost", "val_acc1_gate"} <= set(result.rows[-1])
    x = torch.randn(6, 3, 8, 8)
    assert isinstance(result.model, AdaptiveModule)
    assert pliant.predict(pliant.load(result.out), x, policy="gate")[1].equal(result.model.gated(x)[1])


def test_norm_statistics_taken_anew_are_those_that_the_gate_learns_with(
    tiny: Tiny, images: ImageData, tmp_path: Path
) -> None:
    recipe = tiny(**STAGE_ONE, recalibrate=24, views=2, then=[STAGE_TWO | {"views": 1}])
    result = train(recipe, data=images, out=tmp_path / "run", log=None)
    before, after = pliant.load(tmp_path / "run" / "phase-1").state_dict(), result.model.state_dict()
    assert [name for name in after if not torch.equal(before[name], after[name])] == ["layer1.2.gate.choose.weight"]
    assert after["layer3.2.bn2.widths.0_5.num_batches_tracked"] == 1  # of 24 images
    assert read_info(result.out)["info"]["recalibrated"] == 24


def test_statistics_of_the_training_are_spoken_of(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    def said(out: str, count: int) -> list[str]:
        then = [STAGE_TWO | {"recalibrate": 0, "epochs": 1}]
        lines: list[str] = []
        recipe = tiny(**STAGE_ONE, recalibrate=count, then=then)
        train(recipe, data=images, out=tmp_path / out, log=lines.append)
        return [line for line in lines if "add 'recalibrate'" in line]

    assert said("without", 0) == [
        "phase 2 of 2, the gate learns with norm statistics of the training; to take them anew first, add "
        "'recalibrate' to the phase before"
    ]
    assert not said("with", 16)
    assert read_info(tmp_path / "with")["info"]["recalibrated"] == 16


def test_a_resumed_training_of_a_gate_goes_on_bit_for_bit(tiny: Tiny, images: ImageData, tmp_path: Path) -> None:
    recipe = tiny(**STAGE_ONE, then=[STAGE_TWO])
    whole = train(recipe, data=images, out=tmp_path / "whole", log=None)

    def stop(text: str) -> None:
        if text.startswith("phase 2 of 2, epoch 1/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, data=images, out=tmp_path / "run", log=stop)
    resumed = train(recipe, data=images, out=tmp_path / "run", resume=True, log=None)
    assert [row["train_loss"] for row in resumed.rows] == [row["train_loss"] for row in whole.rows]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"then": [STAGE_TWO | {"learns": "all"}]}, "gates learn by the plan 'gates'"),
        ({"then": [STAGE_TWO | {"plan": {"name": "sandwich"}}]}, "gates learn by the plan 'gates'"),
        (
            {"adapt": {"depth": None, "width": {}}, "plan": {"name": "sandwich"}, "then": [STAGE_TWO]},
            "'adapt.width.gate' is none",
        ),
        ({"learns": "gates", "plan": {"name": "gates"}}, "random weights"),
        ({"views": 2, "then": [STAGE_TWO]}, "views: got 2, but gates learn from no teacher"),
        ({"views": 2, "then": [STAGE_TWO]}, "phase 2: Recipe.views: got 2, but gates learn from no teacher"),
    ],
)
def test_recipes_in_which_no_gate_can_learn_are_refused(tiny: Tiny, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tiny(**STAGE_ONE | changes)


def test_a_gate_learns_from_class_numbers_in_range(model: AdaptiveModule) -> None:
    x, y = batch()
    with pytest.raises(ValueError, match="y: got the label 10, expected 0 to 9"):
        pliant.GateObjective(model)(x, y.clamp(min=9) + 1)
    with pytest.raises(ValueError, match=r"y: got int64 \[32, 1\], expected class numbers \[32\]"):
        pliant.GateObjective(model)(x, y[:, None])


def test_classes_have_weights_for_a_gate(model: AdaptiveModule) -> None:
    """What has no weight might as well not be in the batch."""
    alone = batch()[0][:1].expand(2, -1, -1, -1)

    def on_labels(labels: list[int], weights: tuple[float, ...] | None) -> Tensor:
        torch.manual_seed(7)
        objective = pliant.GateObjective(model, class_weights=weights)
        objective(alone, torch.tensor(labels))
        return objective.terms["gate<-labels"]

    both = on_labels([3, 4], None)
    third, fourth = (on_labels([3, 4], tuple(float(c == only) for c in range(10))) for only in (3, 4))
    torch.testing.assert_close((third + fourth) / 2, both)
    assert third != fourth


def test_objectives_name_each_other(model: AdaptiveModule) -> None:
    with pytest.raises(ValueError, match=r"use pliant\.GateObjective"):
        pliant.Objective(model, build_plan("gates", model.space))
    with pytest.raises(ValueError, match=r"use pliant\.Objective"):
        pliant.GateObjective(model, build_plan("sandwich", model.space))
    plain = pliant.adapt_(pliant.create_model("torchvision:resnet18"), pliant.Width())
    with pytest.raises(ValueError, match="needs a gate"):
        pliant.GateObjective(plain)
    with pytest.raises(ValueError, match="has no sub-networks"):
        pliant.GateObjective(nn.Linear(2, 2))
