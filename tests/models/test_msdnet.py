"""MSDNet: what runs, what a shorter one leaves out, what it says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pliant
from pliant.create import ModelSource, blueprint, identify, usual_image_size
from pliant.models import MODELS
from pliant.models.msdnet import MSDNet, Step

# Several of them have fewer layers than scales would need to leave one by one.
SETTINGS: dict[str, dict[str, Any]] = {
    "lin_grow": {"exits": 4},
    "even": {"exits": 3, "base": 2, "step": 2, "mode": "even"},
    "one layer a step": {"exits": 5, "base": 1, "step": 1, "mode": "even"},
    "few layers, four scales": {"exits": 2, "base": 2, "step": 3, "mode": "even", "widening": (1, 2, 4, 4)}
    | {"bottleneck": (1, 2, 4, 4)},
    "one layer": {"exits": 1},
    "one scale": {"exits": 2, "widening": (2,), "bottleneck": (1,)},
    "no bottleneck": {"exits": 3, "bottleneck": None},
    "no reduction": {"exits": 3, "reduction": 1.0},
    "large images": {"exits": 2, "base": 2, "large_images": True},
}


def make(name: str, **options: Any) -> MSDNet:
    torch.manual_seed(0)
    return MSDNet(**{"channels": 4, "growth": 2, "num_classes": 5} | SETTINGS[name] | options).eval()


def images(model: MSDNet, batch: int = 2) -> Tensor:
    size = 64 if model.image_size == 224 else 16
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def all_exits(model: MSDNet, x: Tensor) -> list[Tensor]:
    scales, logits = model.stem(x), []
    for step in model.steps:
        scales = step(scales)
        logits.append(step.exit(scales))
    return logits


def runs_of(modules: Iterable[nn.Module]) -> Counter[nn.Module]:
    """Count from now on how often each runs."""
    ran = Counter[nn.Module]()
    for module in modules:
        module.register_forward_hook(lambda module, *_: ran.update([module]))
    return ran


def by_layer(model: MSDNet) -> dict[tuple[int, int], nn.Module]:
    """The parts by layer and scale, as the papers draw them: the coarsest scale of diagonal l is in layer l."""
    coarsest = len(model.stem) - 1
    diagonals = [diagonal for step in model.steps for diagonal in step.diagonals]
    named = [
        (number, int(name.removeprefix("scale")), part)
        for number, diagonal in enumerate(diagonals, start=1)
        for name, part in diagonal.items()
    ]
    return {(number - (coarsest - scale), scale): part for number, scale, part in named}


def layer_by_layer(model: MSDNet, x: Tensor) -> list[list[Tensor | None]]:
    """All scales behind the stem and each layer, computed one layer after the other."""
    parts = by_layer(model)
    layers: list[list[Tensor | None]] = [list(model.stem(x))]
    for number in range(1, max(layer for layer, _ in parts) + 1):
        scales = layers[-1]
        finer = [None, *scales]
        layers.append(
            [
                parts[number, scale](x, finer[scale]) if (number, scale) in parts else None
                for scale, x in enumerate(scales)
            ]
        )
    return layers


@pytest.mark.parametrize("setting", SETTINGS)
def test_exits_answer_as_if_all_scales_of_a_layer_ran_before_the_next_layer(setting):
    model = make(setting)
    x = images(model)
    layers = layer_by_layer(model, x)
    last = 0
    for step, logits in zip(model.steps, all_exits(model, x), strict=True):
        last += len(step.diagonals)
        assert torch.equal(step.exit([layers[last][-1]]), logits)


def test_every_scale_leaves_once_after_equal_shares_of_the_layers():
    model = pliant.create_model("pliant:msdnet_cifar100_k7").eval()
    parts = by_layer(model)
    last = [max(layer for layer, scale in parts if scale == number) for number in range(3)]
    assert last == [10, 20, 28]
    scales = model.stem(torch.randn(1, 3, 32, 32))
    for step in model.steps:
        scales = step(scales)
        assert [x.shape[-1] for x in scales] == [32, 16, 8][-len(scales) :]
    assert len(scales) == 1


def test_a_transition_keeps_half_of_the_channels():
    model = pliant.create_model("pliant:msdnet_cifar100_k5").eval()  # 15 layers: scales leave at the 6th and the 11th
    layers = layer_by_layer(model, torch.randn(1, 3, 32, 32))
    reduced = (16 + 6 * 6) // 2
    base = {1: 16 + 6, 5: 16 + 5 * 6, 6: reduced, 10: reduced + 4 * 6, 11: (reduced + 5 * 6) // 2}
    finest = {1: 0, 5: 0, 6: 1, 10: 1, 11: 2}
    for layer, channels in base.items():
        sizes = [None if x is None else x.shape[1] for x in layers[layer]]
        assert sizes == [None] * finest[layer] + [channels * factor for factor in (1, 2, 4)][finest[layer] :]


def test_a_layer_keeps_its_input_and_adds_features_of_the_finer_scale_then_of_its_own():
    model = make("lin_grow")
    before, after = layer_by_layer(model, images(model))[:2]
    for number, (x, y) in enumerate(zip(before, after, strict=True)):
        assert x is not None and y is not None
        assert torch.equal(y[:, : x.shape[1]], x)
        assert y.shape[1] == x.shape[1] * 6 // 4  # 4 base channels, 2 new ones
        scale = by_layer(model)[1, number]
        new = [scale.down(before[number - 1])] if number else []
        assert torch.equal(y[:, x.shape[1] :], torch.cat([*new, scale.same(x)], dim=1))


@pytest.mark.parametrize("setting", [name for name in SETTINGS if name != "one layer"])
def test_a_pass_that_ends_at_an_exit_runs_nothing_that_the_exit_does_not_need(setting):
    model = make(setting)
    convolutions = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    needed = [set(dict(model.truncated(number).named_modules())) for number in range(1, len(model.steps) + 1)]
    adapted = pliant.adapt_(model, pliant.Exits())
    for number, names in enumerate(needed, start=1):
        ran = runs_of(convolutions.values())
        adapted(images(model), subnet=f"exit={number}")
        assert set(ran) == {module for name, module in convolutions.items() if name in names}


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_network_answers_with_its_last_classifier(setting):
    model = make(setting)
    x = images(model)
    ran = runs_of([step.exit for step in model.steps])
    logits = model(x)
    assert logits.shape == (2, 5)
    assert ran == {model.steps[-1].exit: 1}
    assert torch.equal(logits, all_exits(model, x)[-1])


def test_a_classifier_can_be_run_up_to_its_linear_layer():
    model = make("lin_grow")
    scales = model.steps[0](model.stem(images(model)))
    classifier = model.steps[0].exit
    features = classifier.features(scales)
    assert features.shape == (2, 128)
    assert torch.equal(classifier.linear(features), classifier(scales))


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_network_that_ends_at_an_exit_answers_as_that_exit(setting):
    model = make(setting)
    x = images(model)
    for number, logits in enumerate(all_exits(model, x), start=1):
        shorter = model.truncated(number)
        assert type(shorter) is MSDNet
        assert torch.equal(shorter(x), logits)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_network_that_ends_at_an_exit_has_and_runs_nothing_that_it_does_not_need(setting):
    model = make(setting)
    for number in range(1, len(model.steps) + 1):
        shorter = model.truncated(number).train()
        convolutions = [module for module in shorter.modules() if isinstance(module, nn.Conv2d)]
        ran = runs_of(convolutions)
        shorter.zero_grad()
        shorter(images(model)).sum().backward()
        assert ran == dict.fromkeys(convolutions, 1)
        assert all(parameter.grad is not None for parameter in shorter.parameters())


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_part_of_the_network_is_there_for_some_exit(setting):
    model = make(setting).train()
    torch.stack(all_exits(model, images(model))).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_shorter_network_shares_tensors_and_names_with_the_whole():
    model = make("lin_grow")
    before = list(model.state_dict())
    shorter = model.truncated(2)
    whole = model.state_dict()
    assert len(shorter.steps) == 2
    assert {name: tensor.data_ptr() for name, tensor in shorter.state_dict().items()}.items() <= {
        name: tensor.data_ptr() for name, tensor in whole.items()
    }.items()
    assert not any(name.startswith("steps.0.exit.") for name in shorter.state_dict())
    assert list(whole) == before
    assert all(step.has_exit for step in model.steps)


def test_names_of_tensors_stay():
    names = set(make("lin_grow").state_dict())
    assert {
        "stem.scale0.conv.weight",
        "stem.scale2.norm.running_mean",
        "steps.1.diagonals.1.scale0.same.squeeze.conv.weight",
        "steps.1.diagonals.1.scale2.down.grow.norm.weight",
        "steps.2.diagonals.2.scale1.reduce.conv.weight",
        "steps.0.exit.convs.1.conv.weight",
        "steps.3.exit.linear.bias",
    } <= names
    assert {name.split(".")[0] for name in names} == {"stem", "steps"}


@pytest.mark.parametrize("number", [0, 5, -1])
def test_an_exit_that_is_not_there_is_refused(number):
    with pytest.raises(ValueError, match=f"no exit {number}; it has 1, 2, 3, 4"):
        make("lin_grow").truncated(number)


def test_a_shorter_network_has_its_own_end_alone():
    shorter = make("lin_grow").truncated(3)
    with pytest.raises(ValueError, match="no exit 2; it has 3"):
        shorter.truncated(2)
    x = images(shorter)
    assert torch.equal(shorter.truncated(3)(x), shorter(x))


def test_the_anatomy_names_every_classifier_once():
    model = make("lin_grow")
    anatomy = model.anatomy()
    blocks = [block for stage in anatomy.stages for block in stage.blocks]
    assert [block.exit for block in blocks] == ["steps.0.exit", "steps.1.exit", "steps.2.exit", ""]
    assert all(isinstance(model.get_submodule(block.path), Step) for block in blocks)
    assert model.get_submodule(anatomy.head) is model.steps[-1].exit.linear
    assert anatomy.num_classes == 5
    scales = model.stem(images(model))
    for stage in anatomy.stages:
        scales = model.get_submodule(stage.path)(scales)
        assert scales[-1].shape[1] == stage.channels
    assert not any(stage.blocks[0].exit for stage in model.truncated(2).anatomy().stages)


@pytest.mark.parametrize(
    ("depth", "message"),
    [(pliant.Depth(), "this MSDNet has no skippable stage"), (pliant.Depth(mandatory=[1, 1, 1, 1]), "skippable")],
)
def test_nothing_can_be_skipped(depth, message):
    model = make("lin_grow")
    with pytest.raises(ValueError, match=message) as error:
        pliant.adapt_(model, depth)
    assert "\n" not in str(error.value)
    assert type(model) is MSDNet


@pytest.mark.parametrize(
    "name",
    [name for name in MODELS if name.startswith("msdnet_")],
)
def test_a_network_is_found_again_by_its_structure(name):
    with torch.device("meta"):
        model = pliant.create_model(f"pliant:{name}")
    assert identify(model) == ModelSource(name=f"pliant:{name}", num_classes=model.num_classes)


def test_a_network_of_other_classes_is_found_again_by_one_of_the_names_that_make_it():
    with torch.device("meta"):
        model = pliant.create_model("pliant:msdnet_cifar100_k5", num_classes=7)
    source = identify(model)
    assert source is not None and source.num_classes == 7
    assert source.name in ("pliant:msdnet_cifar10_k5", "pliant:msdnet_cifar100_k5")


@pytest.mark.parametrize(("name", "size"), [("msdnet_cifar10_k5", 32), ("msdnet_imagenet_step4", 224)])
def test_the_usual_image_size(name, size):
    model = blueprint(ModelSource(name=f"pliant:{name}"))
    assert model is not None and usual_image_size(model) == size


@pytest.mark.parametrize(
    ("name", "classes"), [("msdnet_cifar10_k4", 10), ("msdnet_cifar100_k8", 100), ("msdnet_imagenet_step6", 1000)]
)
def test_usual_classes(name, classes):
    with torch.device("meta"):
        model = pliant.create_model(f"pliant:{name}")
    assert {step.exit.linear.out_features for step in model.steps} == {classes}


def test_options_are_passed_on():
    model = pliant.create_model("pliant:msdnet_cifar10_k4", num_classes=3, in_channels=1, growth=2, channels=4)
    assert isinstance(model, MSDNet)
    assert [x.shape for x in all_exits(model.eval(), torch.randn(2, 1, 8, 8))] == [(2, 3)] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exits": 0}, "exits=0, expected a whole number from 1 on"),
        ({"exits": 3, "base": 0}, "base=0, expected"),
        ({"exits": 3, "step": -1}, "step=-1, expected"),
        ({"exits": 3, "mode": "odd"}, "mode 'odd', expected one of even, lin_grow"),
        ({"exits": 3, "growth": 3}, r"growth=3 and widening=\[1, 1, 2\].* scale 1 gets 3"),
        ({"exits": 3, "growth": 0}, "growth=0, expected"),
        ({"exits": 3, "channels": 0}, "channels=0, expected"),
        ({"exits": 3, "widening": ()}, r"widening=\[\], expected a number"),
        ({"exits": 3, "bottleneck": (1, 2)}, r"bottleneck=\[1, 2\], expected 3 numbers"),
        ({"exits": 3, "reduction": 0.0}, "reduction=0.0, expected a share"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message) as error:
        MSDNet(**{"widening": (1, 1, 2)} | options)
    assert "\n" not in str(error.value)


def test_convolutions_start_with_the_variance_of_their_outputs():
    torch.manual_seed(0)
    model = MSDNet(2)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            kernel = module.kernel_size[0]
            assert module.weight.std().item() == pytest.approx((2 / (kernel**2 * module.out_channels)) ** 0.5, rel=0.1)
            assert module.bias is None


def test_memory_format_and_lower_precision():
    model = make("lin_grow")
    x = images(model)
    with torch.no_grad():
        expected = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert model(x).dtype is torch.bfloat16
            torch.testing.assert_close(model(x).float(), expected, rtol=0.1, atol=0.1)
        last = model.to(memory_format=torch.channels_last)
        scales = last.stem(x.to(memory_format=torch.channels_last))
        assert all(x.is_contiguous(memory_format=torch.channels_last) for x in last.steps[0](scales))
        torch.testing.assert_close(last(x.to(memory_format=torch.channels_last)), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_it_compiles_to_one_graph():
    model = make("even", exits=2)
    x = images(model)
    torch._dynamo.reset()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x))
