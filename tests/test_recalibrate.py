import copy

import pytest
import torch

import pliant
from pliant.recalibrate import training_images, why_not


@pytest.fixture
def model():
    torch.manual_seed(0)
    return pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Depth()).eval()


def test_recalibrated_norms_have_the_statistics_of_the_sub_network(model):
    images = [torch.rand(8, 3, 32, 32) + shift for shift in (0.0, 0.5)]
    before = copy.deepcopy(model.state_dict())
    network = pliant.recalibrated(model, "TFT", images)
    stem = network.conv1
    means = torch.stack([stem(image).mean((0, 2, 3)) for image in images]).mean(0)
    torch.testing.assert_close(network.bn1.running_mean, means)
    assert network.bn1.momentum == 0.1 and not network.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with pytest.raises(ValueError, match="no batches"):
        pliant.recalibrated(model, "TFT", [])


def test_a_network_without_batch_norms_is_extracted_as_it_is():
    timm = pytest.importorskip("timm")
    vit = timm.create_model("vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=12, num_heads=2, num_classes=2)
    model, images = pliant.adapt_(vit, pliant.Depth()).eval(), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        expected = model(images, subnet="FTTT")
        assert torch.equal(pliant.recalibrated(model, "FTTT", [images])(images), expected)
    assert "no batch norms" in why_not(model)


def test_which_sub_networks_have_statistics_to_take_anew(model):
    anew = {str(subnet) for subnet in model.subnets if not why_not(model, subnet)}
    assert anew == {str(subnet) for subnet in model.subnets} - {"TTT", "FFF"}
    assert why_not(model) == ""
    assert "no sub-networks" in why_not(pliant.extract(model, "FTT"))


@pytest.mark.parametrize("count", [1, 100, 256, 300, 301])
def test_training_images_are_as_many_as_asked_and_the_same_each_time(tmp_path_factory, count):
    digits = pliant.load_data("digits", cache=tmp_path_factory.getbasetemp() / "cache", image_size=8)
    batches = training_images(digits, count)
    first, second = list(batches), list(batches)
    assert sum(map(len, first)) == count
    assert max(map(len, first)) <= 128
    assert max(map(len, first)) - min(map(len, first)) <= 2
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.fixture
def widths():
    torch.manual_seed(0)
    network = pliant.create_model("pliant:resnet20", shortcut="projection")
    return pliant.adapt_(network, pliant.Width(choices=(0.5, 0.75, 1.0))).eval()


BATCHES = [torch.rand(8, 3, 32, 32) + shift for shift in (0.0, 0.5)]


@pytest.mark.parametrize("norms", ["statistics", "private"])
def test_every_width_keeps_the_statistics_of_its_own_activations(norms):
    network = pliant.create_model("pliant:resnet20", shortcut="projection")
    model = pliant.adapt_(network, pliant.Width(choices=(0.5, 1.0), norms=norms)).train()
    model(BATCHES[0] * 9, subnet="width=0.5")
    before = {name: value.clone() for name, value in model.named_parameters()}
    expected = {width: pliant.recalibrated(model, f"width={width}", BATCHES).state_dict() for width in (0.5, 1.0)}

    assert pliant.recalibrate_(model, BATCHES) == 16
    assert not any(module.training for module in model.modules())
    assert {module.momentum for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)} == {0.1}
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert all(value.grad is None for value in model.parameters())
    for width, state in expected.items():
        found = pliant.extract(model, f"width={width}").state_dict()
        assert all(torch.equal(found[name], value) for name, value in state.items())
    half = pliant.extract(model, "width=0.5")
    means = torch.stack([half.conv1(images).mean((0, 2, 3)) for images in BATCHES]).mean(0)
    torch.testing.assert_close(half.bn1.running_mean, means)
    name = "layer2.0.bn2.running_mean"
    assert not torch.allclose(expected[0.5][name], expected[1.0][name][:16])


def test_statistics_that_widths_share_are_averaged_over_them():
    model = pliant.adapt_(pliant.create_model("pliant:ds_mbnet_cifar10"), pliant.Width())
    batches = [torch.rand(4, 3, 32, 32) + shift for shift in (0.0, 0.5)]
    pliant.recalibrate_(model, batches)
    late = {str(subnet): pliant.recalibrated(model, subnet, batches).state_dict() for subnet in model.subnets}
    last = list(late["width=0.36/0.35"])
    name = next(key for key in reversed(last) if key.endswith("running_mean"))
    own = pliant.extract(model, "width=0.36/0.35").state_dict()
    torch.testing.assert_close(own[name], late["width=0.36/0.35"][name])  # no other width is as narrow there
    shared = next(key for key in last if key.endswith("running_mean"))
    counter = shared.replace("running_mean", "num_batches_tracked")
    assert own[counter] == 14 * len(batches)
    torch.testing.assert_close(own[shared], late["width=0.36/0.35"][shared])


def test_stages_of_shared_widths_have_the_mean_over_all_that_run_them():
    network = pliant.create_model("pliant:resnet20", shortcut="projection")
    model = pliant.adapt_(network, pliant.Width(choices=(0.5, 1.0), per_stage=True))
    with_half = [subnet for subnet in model.subnets if subnet.width[-1] == 0.5]
    alone = [pliant.recalibrated(model, subnet, BATCHES).state_dict() for subnet in with_half]
    pliant.recalibrate_(model, BATCHES)
    mean = pliant.extract(model, with_half[0]).state_dict()["layer3.2.bn2.running_mean"]
    torch.testing.assert_close(mean, torch.stack([state["layer3.2.bn2.running_mean"] for state in alone]).mean(0))
    assert not torch.allclose(mean, alone[0]["layer3.2.bn2.running_mean"])


def test_with_depths_both_sets_of_a_skip_aware_norm_are_taken_anew():
    network = pliant.create_model("pliant:resnet20", shortcut="projection")
    model = pliant.adapt_(network, pliant.Width(choices=(0.5, 1.0)), pliant.Depth())
    done = []
    pliant.recalibrate_(model, BATCHES, on_progress=lambda subnet, *numbers: done.append((subnet, *numbers)))
    ends = ["width=0.5,depth=TTT", "width=0.5,depth=FFF", "width=1.0,depth=TTT", "width=1.0,depth=FFF"]
    assert done == [(subnet, number, 4) for number, subnet in enumerate(ends, start=1)]
    for subnet in ends:
        own, alone = pliant.extract(model, subnet), pliant.recalibrated(model, subnet, BATCHES)
        for name in ("layer1.0.bn1", "layer3.0.bn2"):
            torch.testing.assert_close(own.get_submodule(name).running_mean, alone.get_submodule(name).running_mean)


def test_what_was_done_before_an_interruption_is_kept(widths):
    whole = copy.deepcopy(widths)
    pliant.recalibrate_(whole, BATCHES)

    def stop(subnet, done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pliant.recalibrate_(widths, BATCHES, on_progress=stop)
    ran = []
    pliant.recalibrate_(widths, BATCHES, done=2, on_progress=lambda subnet, *_: ran.append(subnet))
    assert ran == ["width=1.0"]
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in widths.state_dict().items())


def test_what_keeps_no_statistics_of_its_own_is_refused_and_left_alone(widths):
    network = pliant.create_model("pliant:resnet20", shortcut="projection")
    shared = pliant.adapt_(network, pliant.Width(norms="shared"))
    one_set = pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Depth(skip_aware_norms=False))
    for given, batches, message in [
        (one_set, BATCHES, r"one set of norms for all depths \(skip_aware_norms=False\)"),
        (shared, BATCHES, r"one set of norms for all widths \(norms='shared'\), so there is nothing to keep"),
        (torch.nn.Linear(3, 2), BATCHES, "this Linear has no batch norms"),
        (widths, iter(BATCHES), "got batches that end after one of 3 sub-networks, expected a list"),
        (widths, [], "no batches"),
        (widths, [BATCHES[0], (BATCHES[1], torch.zeros(8))], "got a batch that is a tuple, expected images alone"),
        (widths, [BATCHES[0], BATCHES[1] * torch.nan], "statistics that are not finite"),
    ]:
        before = copy.deepcopy(given.train().state_dict())
        with pytest.raises(ValueError, match=message) as refusal:
            pliant.recalibrate_(given, batches)
        assert "\n" not in str(refusal.value)
        assert all(torch.equal(value, before[name]) for name, value in given.state_dict().items())
        assert given.training


def test_a_batch_that_the_network_does_not_take_changes_nothing(widths):
    before = copy.deepcopy(widths.state_dict())
    with pytest.raises(RuntimeError, match="channels"):
        pliant.recalibrate_(widths, [*BATCHES, torch.rand(8, 1, 32, 32)])
    assert all(torch.equal(value, before[name]) for name, value in widths.state_dict().items())
