"""What networks of many widths learn, and from whom."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import pliant
from pliant.core.subnet import SubNetSpace
from pliant.plans import build_plan

SPACE = SubNetSpace(widths=((0.25, 0.25), (0.5, 0.5), (0.75, 0.75), (1.0, 1.0)))
CHOICES = (0.25, 0.5, 0.75, 1.0)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 3])


def taught(student: Tensor, teacher: Tensor) -> Tensor:
    soft = teacher.detach().softmax(1)
    return (soft * (soft.log() - student.log_softmax(1))).sum(1).mean()


def test_slimmable_networks_learn_every_width_from_the_labels(make, batch):
    model, (x, y) = make(pliant.Width(choices=CHOICES)).train(), batch
    loss = pliant.Objective(model, build_plan("slimmable", model.space))(x, y)
    expected = sum(F.cross_entropy(model(x, subnet=subnet), y) for subnet in model.subnets)
    torch.testing.assert_close(loss, expected)


def test_the_sandwich_is_the_default(make, batch):
    model, (x, y) = make(pliant.Width(choices=CHOICES)).train(), batch
    objective = pliant.Objective(model)
    loss = objective(x, y)  # of four widths, two lie between
    outputs = {str(subnet): model(x, subnet=subnet) for subnet in model.subnets}
    whole = outputs.pop("width=1.0")
    expected = F.cross_entropy(whole, y) + sum(taught(output, whole) for output in outputs.values())
    torch.testing.assert_close(loss, expected)
    assert list(objective.terms) == [
        "width=1.0<-labels",
        "random-1<-width=1.0/logits",
        "random-2<-width=1.0/logits",
        "width=0.25<-width=1.0/logits",
    ]


def test_all_learn_from_the_labels_alone_if_their_share_is_1():
    terms = build_plan("sandwich", SPACE, labels=1, random=1).terms
    assert [term.name for term in terms] == ["width=1.0<-labels", "random-1<-labels", "width=0.25<-labels"]


@pytest.mark.parametrize("name", ["sandwich", "slimmable"])
def test_a_share_of_the_labels_in_what_the_taught_learn(make, batch, name):
    model, (x, y) = make(pliant.Width(choices=CHOICES)).train(), batch
    loss = pliant.Objective(model, build_plan(name, model.space, labels=0.25))(x, y)
    *outputs, whole = (model(x, subnet=subnet) for subnet in model.subnets)
    expected = F.cross_entropy(whole, y)
    for output in outputs:
        expected = expected + 0.25 * F.cross_entropy(output, y) + 0.75 * taught(output, whole)
    torch.testing.assert_close(loss, expected)


def test_an_ensemble_teaches_the_smallest_with_its_mean(make, batch):
    student, (x, y) = make(pliant.Width(choices=CHOICES)).train(), batch
    teacher = make(pliant.Width(choices=CHOICES))
    with torch.no_grad():
        teacher.fc.weight.mul_(3)
    plan = build_plan("sandwich", student.space, random=1, ensemble=True)
    drawn = plan.drawn({"random-1": "width=0.5", "random-2": "width=0.75"})
    pliant.Objective(student, drawn, teacher=teacher).backward(x, y)
    got = student.get_submodule("layer1.0.conv1")._parameters["weight"].grad

    again = make(pliant.Width(choices=CHOICES)).train()
    mean = (teacher(x).softmax(1) + teacher(x, subnet="width=0.75").softmax(1)).detach() / 2
    loss = F.cross_entropy(again(x), y) + taught(again(x, subnet="width=0.5"), teacher(x))
    (loss + F.cross_entropy(again(x, subnet="width=0.25"), mean)).backward()
    torch.testing.assert_close(got, again.get_submodule("layer1.0.conv1")._parameters["weight"].grad)


def test_every_step_draws_anew_from_those_that_are_not_named(tiny, make, batch, monkeypatch):
    choices = tuple(number / 8 for number in range(1, 9))
    model = make(pliant.Width(choices=choices)).train()
    objective = pliant.Objective(model, build_plan("sandwich", model.space))
    ran: list[str] = []
    forward = tiny.forward
    widths = lambda: model._pliant_adaptation.switch.widths[0]  # noqa: E731
    monkeypatch.setattr(tiny, "forward", lambda self, x: ran.append(widths()) or forward(self, x))
    torch.manual_seed(0)
    for _ in range(20):
        objective(*batch)
    steps = [ran[start : start + 4] for start in range(0, len(ran), 4)]
    assert len(steps) == 20
    assert all(step[0] == 1.0 and step[-1] == 0.125 and len(set(step)) == 4 for step in steps)
    assert {width for step in steps for width in step[1:3]} == set(choices[1:-1])
    again = ran[:]
    ran.clear()
    torch.manual_seed(0)
    for _ in range(20):
        objective(*batch)
    assert ran == again


def test_joined_with_a_plan_for_depths(make, batch):
    model = make(pliant.Width(choices=CHOICES), pliant.Depth()).train()
    plan = build_plan("adn-sum+sandwich", model.space)
    assert [term.name for term in plan.terms] == [
        "width=1.0,depth=FF<-labels",
        "width=1.0,depth=TT<-width=1.0,depth=FF/logits",
        "random-1<-width=1.0,depth=FF/logits",
        "random-2<-width=1.0,depth=FF/logits",
        "width=0.25,depth=TT<-width=1.0,depth=FF/logits",
    ]
    assert pliant.Objective(model).plan.terms == plan.terms
    assert pliant.Objective(model, plan)(*batch).isfinite()


def test_one_pass_after_the_other_gives_the_same_gradients(make, batch):
    gradients = []
    for backward in (lambda objective: objective(*batch).backward(), lambda objective: objective.backward(*batch)):
        model = make(pliant.Width(choices=CHOICES)).train()
        torch.manual_seed(0)
        backward(pliant.Objective(model))
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("name", "space", "options", "message"),
    [
        ("sandwich", SubNetSpace((1, 1)), {}, r"'sandwich' is for networks whose width can be chosen.*pliant\.Width"),
        ("sandwich", SPACE, {"random": 3}, r"draws 3 sub-networks for each step, but this network has 2 beside"),
        ("sandwich", SPACE, {"random": -1}, r"random is -1, expected at least 0"),
        ("sandwich", SPACE, {"labels": 1, "ensemble": True}, r"ensemble=True needs teachers, and with labels=1"),
        ("sandwich", SPACE, {"labels": 1.5}, r"'sandwich': labels is 1.5, expected a share in \[0, 1\]"),
        ("sandwich", SPACE, {"labels": "half"}, r"plan 'sandwich', labels: got 'half', expected float"),
        ("adn", SubNetSpace((1, 1)), {"alpha": True}, r"plan 'adn', alpha: got True, expected float"),
        ("slimmable", SPACE, {"labels": -0.5}, r"'slimmable': labels is -0.5, expected a share in \[0, 1\]"),
        ("gates", SPACE, {"cost": -1.0}, r"'gates': cost is -1.0, expected at least 0"),
        ("sandwich", SPACE, {"ensemble": True}, r"draws 4 sub-networks .* has 2 .*with 'ensemble' twice as many"),
        ("slimmable+sandwich", SPACE, {}, r"joins two plans of one axis"),
    ],
)
def test_plans_that_do_not_fit_are_refused(name, space, options, message):
    with pytest.raises(ValueError, match=message):
        build_plan(name, space, **options)


@pytest.mark.parametrize("objective", [pliant.Objective, pliant.GateObjective])
def test_the_name_of_a_plan_is_none(objective):
    model = pliant.create_model("pliant:resnet20", shortcut="projection")
    pliant.adapt_(model, pliant.Width(choices=CHOICES, gate=pliant.Gate()))
    with pytest.raises(ValueError, match=r"plan: got 'sandwich', expected what pliant\.plans\.build_plan"):
        objective(model, "sandwich")
