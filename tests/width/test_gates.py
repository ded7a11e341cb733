"""A gate that chooses the width, input by input."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import pliant
from pliant.core.macs import count_macs
from pliant.measure.operators import count_operators
from pliant.width.gates import gate_of

NAMES = {
    "pliant:resnet20": {"shortcut": "projection"},
    "pliant:ds_mbnet_cifar10": {"multiplier": 0.25},
    "torchvision:mobilenet_v2": {},
    "timm:convnext_atto": {},
    "torchvision:swin_t": {},
    "pliant:ds_vit_cifar10": {},
}


def gated(name: str = "pliant:resnet20", *, attention: bool = True, seed: int = 0) -> nn.Module:
    """A network whose gate sends images of `images` different ways, and whose attention is not the identity."""
    torch.manual_seed(seed)
    model = pliant.create_model(name, num_classes=10, **NAMES[name])
    pliant.adapt_(model, pliant.Width(gate=pliant.Gate(attention=attention)))
    gate = gate_of(model)
    if gate.expand is not None:
        nn.init.normal_(gate.expand.weight, std=0.5)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        for subnet in model.train().subnets:  # norms as after a training, so that what an image is makes a difference
            model(images(), subnet=subnet)
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum
        # By what differs from image to image alone.
        mean = nn.functional.normalize(model.eval().seen_by_gate(images())[1].mean(0), dim=0)
        gate.choose.weight -= torch.outer(gate.choose.weight @ mean, mean)
    return model


def images(count: int = 12) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * torch.linspace(
        0.1, 4, count
    ).view(-1, 1, 1, 1)


def test_no_input_at_all() -> None:
    model = gated()
    logits, places = pliant.predict(model, images(0), policy="gate")
    assert logits.shape == (0, 10) and len(places) == 0
    assert model(images(0), subnet="smallest").shape == (0, 10)


def test_blocks_behind_the_gate_can_be_checkpointed() -> None:
    """They are computed again as on the way that was taken."""
    gradients, x = [], images()[:9]
    for checkpointed in (False, True):
        model = gated()
        for block in model.layer3 if checkpointed else ():
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        logits, places = model.gated(x)
        assert places.bincount().argmax() > 0, "the test needs most inputs to leave the route that the pass began with"
        logits.square().sum().backward()
        gradients.append({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_every_input_is_answered_by_the_route_that_the_gate_chose(name: str) -> None:
    model, x = gated(name), images()
    logits, places = pliant.predict(model, x, policy="gate")
    assert len(places.unique()) > 1, "the test needs inputs that go different ways"
    with torch.no_grad():
        every = torch.stack([model(x, subnet=route) for route in model.routes])
    torch.testing.assert_close(logits, every[places, torch.arange(len(x))], atol=1e-5, rtol=1e-4)
    assert (every[0] - every[-1]).abs().max() > 1e-3


def test_one_input_alone_is_answered_as_in_a_batch() -> None:
    model, x = gated(), images()
    logits, places = pliant.predict(model, x, policy="gate")
    alone = [pliant.predict(model, image[None], policy="gate") for image in x]
    torch.testing.assert_close(torch.cat([one for one, _ in alone]), logits, atol=1e-5, rtol=1e-4)
    assert torch.cat([place for _, place in alone]).equal(places)


def test_what_is_chosen_alone_runs() -> None:
    model = gated()
    for image in images():
        _, place = pliant.predict(model, image[None], policy="gate")
        route = model.routes[place]
        gate = gate_of(model).choose
        own = count_macs(lambda route=route, image=image: model(image[None], subnet=route))
        assert count_macs(lambda image=image: model.gated(image[None])) == own + gate.weight.numel()


def test_a_batch_runs_dense_convolutions_one_pass_for_each_way() -> None:
    model, x = gated(), images()
    ways = len(pliant.predict(model, x, policy="gate")[1].unique())
    assert ways > 1
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    with torch.no_grad():
        count = count_operators(lambda: model.gated(x))["aten.convolution"]
    assert count == ways * convolutions


def test_the_gate_leaves_no_trace_in_later_passes() -> None:
    model, x = gated(), images()
    before = model(x), model(x, subnet="smallest")
    model.gated(x)
    torch.testing.assert_close((model(x), model(x, subnet="smallest")), before)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("attention", [True, False])
def test_extracted_networks_answer_as_the_model_does(name: str, attention: bool) -> None:
    model, x = gated(name, attention=attention), images(2)
    kind = type(pliant.create_model(name, num_classes=10, **NAMES[name]))
    for subnet in (*model.routes, "largest"):
        network = pliant.extract(model, subnet)
        assert type(network) is kind
        logits = model(x, subnet=subnet)
        torch.testing.assert_close(network(x), logits, atol=1e-5, rtol=1e-4)
        assert (logits[0] - logits[1]).abs().max() > 1e-3, "the test needs answers that depend on the image"
        assert not any("gate" in key for key in network.state_dict())


def test_attention_begins_as_the_identity_and_learns() -> None:
    torch.manual_seed(0)
    model = pliant.create_model("pliant:resnet20", num_classes=10, shortcut="projection")
    plain = pliant.adapt_(pliant.create_model("pliant:resnet20", num_classes=10, shortcut="projection"), pliant.Width())
    pliant.adapt_(model, pliant.Width(gate=pliant.Gate()))
    others = (".gate.", ".widths.1_0.")  # of the gate, and of its widest route
    plain.load_state_dict({k: value for k, value in model.state_dict().items() if not any(one in k for one in others)})
    x = images(4)
    torch.testing.assert_close(model.eval()(x), plain.eval()(x))
    model(x, subnet=model.routes[1]).sum().backward()
    assert gate_of(model).expand.weight.grad.abs().sum() > 0


def test_a_saved_network_chooses_the_same_ways(tmp_path) -> None:
    model, x = gated(), images()
    pliant.save(model, tmp_path / "net")
    logits, places = pliant.predict(pliant.load(tmp_path / "net"), x, policy="gate")
    expected = pliant.predict(model, x, policy="gate")
    assert places.equal(expected[1])
    torch.testing.assert_close(logits, expected[0])


def test_the_widest_route_and_the_whole_network_keep_their_statistics_apart() -> None:
    model, x = gated(), images()
    widest = model.routes[-1]
    before = model(x, subnet="largest"), model(x, subnet=widest)
    model.train()(3 * x, subnet=widest)
    after = model.eval()(x, subnet="largest"), model(x, subnet=widest)
    torch.testing.assert_close(after[0], before[0], atol=0, rtol=0)
    assert not torch.allclose(after[1], before[1])


def test_the_early_stages_are_narrow_on_every_route() -> None:
    model = pliant.create_model("torchvision:resnet18", num_classes=10)
    pliant.adapt_(model, pliant.Width(choices=(0.5, 0.75, 1.0), gate=pliant.Gate(behind=2, routes=(0.5, 1.0))))
    assert [str(subnet) for subnet in model.subnets] == [
        "width=0.5",
        "width=0.5/0.5/0.75/0.75",
        "width=0.5/0.5/1.0/1.0",
        "width=1.0",
    ]
    assert [str(route) for route in model.routes] == ["width=0.5", "width=0.5/0.5/1.0/1.0"]


def test_ds_mbnet_may_choose_among_some_of_its_widths() -> None:
    model = pliant.create_model("pliant:ds_mbnet_cifar10", multiplier=0.25)
    pliant.adapt_(model, pliant.Width(gate=pliant.Gate(routes=(0.35, 0.55, 0.75, 1.0))))
    assert len(model.subnets) == 15
    assert [str(route) for route in model.routes] == [f"width=0.36/{width}" for width in (0.35, 0.55, 0.75, 1.0)]


@pytest.mark.parametrize(
    ("name", "options", "config", "said"),
    [
        ("timm:vit_tiny_patch16_224", {}, pliant.Width(gate=pliant.Gate()), "all stages have one width together"),
        ("torchvision:resnet18", {}, pliant.Width(gate=pliant.Gate(behind=4)), "got 4, .* allowed are 1 to 3"),
        (
            "torchvision:resnet18",
            {},
            pliant.Width(gate=pliant.Gate(routes=(0.3, 0.5))),
            "Gate.routes: got 0.3, allowed are 0.25, 0.5, 0.75, 1.0",
        ),
    ],
)
def test_a_gate_without_a_place_is_refused(name: str, options: dict, config: pliant.Width, said: str) -> None:
    model = pliant.create_model(name, **options)
    keys = list(model.state_dict())
    with pytest.raises(ValueError, match=said):
        pliant.adapt_(model, config)
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: pliant.Gate(behind=0), "Gate.behind: got 0, expected at least 1"),
        (lambda: pliant.Gate(routes=(0.5,)), "expected two or more ascending widths"),
        (lambda: pliant.Gate(routes=(0.5, 0.25)), "expected two or more ascending widths"),
        (lambda: pliant.Width(choices=(1.0,), gate=pliant.Gate()), "expected two or more ascending shares"),
        (lambda: pliant.Width(per_stage=True, gate=pliant.Gate()), "per_stage"),
    ],
)
def test_settings_that_leave_nothing_to_choose_are_refused(make, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_a_network_without_a_gate_cannot_be_asked_for_one() -> None:
    model = pliant.adapt_(pliant.create_model("torchvision:resnet18"), pliant.Width())
    with pytest.raises(ValueError, match="has no gate"):
        pliant.predict(model, images(1), policy="gate")
    with pytest.raises(ValueError, match="got policy 'gates', expected"):
        pliant.predict(model, images(1), policy="gates")


def test_depth_and_a_gate_are_refused_together() -> None:
    model = pliant.create_model("torchvision:resnet18")
    with pytest.raises(ValueError, match="Depth and a gate"):
        pliant.adapt_(model, pliant.Width(gate=pliant.Gate()), pliant.Depth())
