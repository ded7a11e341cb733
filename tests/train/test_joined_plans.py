"""Plans of early exits, and of depth and exits together: what is learned, from whom, and in how few passes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import pliant
from pliant.core.subnet import SubNetSpace
from pliant.plans import build_plan
from pliant.train.losses import feature_divergence

BOTH = SubNetSpace((1, 1, 1), (1, 2, 3))
ALONE = SubNetSpace((), (1, 2, 3))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.tensor([1, 2, 3, 4])


def logit_divergence(student, teacher, temperature=1.0):
    own, other = ((logits / temperature).log_softmax(1) for logits in (student, teacher))
    return F.kl_div(own, other, reduction="batchmean", log_target=True) * temperature**2


def make(*configs: pliant.Exits | pliant.Depth):
    torch.manual_seed(0)
    return pliant.adapt_(pliant.create_model("pliant:resnet20"), *configs)


def lines(name: str, space: SubNetSpace, **options: float) -> dict[str, float]:
    return {term.name: term.weight for term in build_plan(name, space, **options).terms}


def test_every_exit_learns_from_the_labels():
    model, (x, y) = make(pliant.Exits()).train(), batch()
    loss = pliant.Objective(model)(x, y)
    expected = sum(F.cross_entropy(logits, y) for logits in model(x, exits=True))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_one_for_all_is_the_written_formula(temperature):
    model, (x, y) = make(pliant.Exits()).train(), batch()
    plan = build_plan("one-for-all", model.space, gamma=0.3, temperature=temperature)
    loss = pliant.Objective(model, plan)(x, y)
    logits = model(x, exits=True)
    taught = F.softmax(logits[-1].detach() / temperature, dim=1)
    expected = F.cross_entropy(logits[-1], y)
    for own in logits[:-1]:
        divergence = (taught * (taught.log() - F.log_softmax(own / temperature, dim=1))).sum(1).mean()
        expected = expected + 0.7 * F.cross_entropy(own, y) + 0.3 * temperature**2 * divergence
    torch.testing.assert_close(loss, expected)


def test_a_frozen_teacher_is_another_network_in_eval_mode():
    teacher, model, (x, y) = make(pliant.Exits()), make(pliant.Exits(collaboration="identity")).train(), batch()
    with torch.no_grad():
        teacher.fc.weight.mul_(3.0)
    plan = build_plan("one-for-all", model.space, gamma=0.3, temperature=2.0)
    objective = pliant.Objective(model, plan, teacher=teacher.train())
    statistics = {name: buffer.clone() for name, buffer in teacher.named_buffers()}
    loss = objective(x, y)
    loss.backward()
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in teacher.named_buffers())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any(name.startswith("_teacher") for name in objective.state_dict())
    logits = model(x, exits=True)
    expected = F.cross_entropy(logits[-1], y)
    for own in logits[:-1]:
        expected = expected + 0.7 * F.cross_entropy(own, y) + 0.3 * logit_divergence(own, teacher(x), 2.0)
    torch.testing.assert_close(loss, expected)


def test_a_frozen_teacher_teaches_depths_too_and_the_model_runs_only_to_learn():
    teacher, model, (x, y) = make(pliant.Depth()), make(pliant.Depth()).train(), batch()
    terms = (
        pliant.Term(student="TTT", teacher="largest", on="logits"),
        pliant.Term(student="TTT", teacher="largest", on="features"),
    )
    ran = []
    handle = model.register_forward_pre_hook(
        lambda _module, _args, kwargs: ran.append(kwargs["subnet"]), with_kwargs=True
    )
    loss = pliant.Objective(model, pliant.Plan(name="own", terms=terms), teacher=teacher)(x, y)
    handle.remove()
    assert ran == ["TTT"]
    logits, features = model(x, subnet="TTT", features=True)
    theirs, their_features = teacher(x, features=True)
    expected = logit_divergence(logits, theirs) + feature_divergence(features, their_features)
    torch.testing.assert_close(loss, expected)


def test_a_plain_network_teaches_what_the_largest_does():
    teacher, model, (x, y) = pliant.create_model("pliant:resnet20").eval(), make(pliant.Exits()).train(), batch()
    plan = build_plan("one-for-all", model.space)
    loss = pliant.Objective(model, plan, teacher=teacher)(x, y)
    logits = model(x, exits=True)
    expected = F.cross_entropy(logits[-1], y)
    for own in logits[:-1]:
        expected = expected + 0.9 * F.cross_entropy(own, y) + 0.1 * logit_divergence(own, teacher(x))
    torch.testing.assert_close(loss, expected)
    with pytest.raises(ValueError, match=r"ResNet without sub-networks, which can teach what FFF .*not 'TTT<-FFF/feat"):
        pliant.Objective(depths := make(pliant.Depth()), build_plan("adn", depths.space), teacher=teacher)


def test_a_teacher_of_other_sub_networks_is_refused():
    with pytest.raises(ValueError, match="the teacher has other sub-networks than the model: exit=1 to exit=2, "):
        pliant.Objective(make(pliant.Exits()), teacher=make(pliant.Exits(at=(2,))))


def test_depth_and_exits_are_joined():
    assert lines("adn-sum+exits", BOTH, features=True) == {
        "depth=FFF,exit=3<-labels": 1.0,
        "depth=TTT,exit=3<-depth=FFF,exit=3/logits": 1.0,
        "depth=TTT,exit=3<-depth=FFF,exit=3/features": 1.0,
        "depth=FFF,exit=1<-labels": 1.0,
        "depth=FFF,exit=2<-labels": 1.0,
        "depth=TFF,exit=1<-depth=FFF,exit=1/logits": 1.0,
        "depth=TTF,exit=2<-depth=FFF,exit=2/logits": 1.0,
    }


def test_an_exit_before_which_nothing_can_be_skipped_does_not_teach_itself():
    first_stage_of_one_block = SubNetSpace((0, 1, 1), (1, 2, 3))
    assert "depth=FTF,exit=2<-depth=FFF,exit=2/logits" in lines("adn-sum+exits", first_stage_of_one_block)
    assert not any("exit=1/" in name for name in lines("adn-sum+exits", first_stage_of_one_block))


def test_depth_and_exits_together_equal_the_written_formula_in_two_passes():
    model, (x, y) = make(pliant.Depth(), pliant.Exits()).train(), batch()
    objective = pliant.Objective(model, build_plan("adn-sum+exits", model.space, features=True))
    passes = []
    handle = model.register_forward_pre_hook(
        lambda _module, _args, kwargs: passes.append(kwargs["subnet"]), with_kwargs=True
    )
    loss = objective(x, y)
    handle.remove()
    assert passes == ["depth=FFF,exit=3", "depth=TTT,exit=3"]

    largest, features = model(x, exits=True, features=True)
    smallest, own = model(x, subnet="depth=TTT", exits=True, features=True)
    expected = sum(F.cross_entropy(logits, y) for logits in largest)
    expected = expected + sum(logit_divergence(a, b.detach()) for a, b in zip(smallest, largest, strict=True))
    expected = expected + feature_divergence(own, [f.detach() for f in features], 1.0, None)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("configs", [[pliant.Exits()], [pliant.Depth(), pliant.Exits(collaboration="concatenate")]])
def test_pass_by_pass_gives_the_gradients_of_all_at_once(configs):
    model, (x, y) = make(*configs).train(), batch()
    objective = pliant.Objective(model)
    objective(x, y).backward()
    joint = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in joint.values())  # every part learns
    model.zero_grad()
    objective.backward(x, y)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, joint[name], msg=name)


@pytest.mark.parametrize(
    ("name", "space", "options", "message"),
    [
        ("adn", ALONE, {}, r"'adn' is for networks whose depth can be chosen.*pliant\.Depth"),
        ("exits", SubNetSpace((1, 1)), {}, r"'exits' is for networks with early exits.*pliant\.Exits"),
        ("adn+exit", BOTH, {}, "unknown plan 'exit'; allowed: adn, "),
        ("adn+adn-sum", BOTH, {}, "joins two plans of one axis"),
        ("one-for-all", ALONE, {"gamma": 2.0}, "gamma is 2.0, expected a number from 0 to 1"),
        ("one-for-all", ALONE, {"alpha": 1.0}, "no option 'alpha'; allowed: gamma, temperature"),
    ],
)
def test_plans_that_do_not_fit_are_refused(name, space, options, message):
    with pytest.raises(ValueError, match=message):
        build_plan(name, space, **options)


def test_passes_that_would_wait_for_each_other_are_refused():
    model = make(pliant.Depth(), pliant.Exits())
    terms = (
        pliant.Term(student="depth=TTT", teacher="exit=1", on="logits"),
        pliant.Term(student="depth=FFF", teacher="depth=TFF,exit=1", on="logits"),
    )
    with pytest.raises(ValueError, match="teach each other"):
        pliant.Objective(model, pliant.Plan(name="circle", terms=terms))
