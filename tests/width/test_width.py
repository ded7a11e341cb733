"""Width: the leading channels run alone, and are what a smaller network would be."""

from __future__ import annotations

import copy
import gc
import re
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.models.swin_transformer import SwinTransformer

import pliant
from pliant.core.subnet import SubNetSpace

NORMS = ["statistics", "private", "shared"]


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_the_whole_network_is_what_it_was(tiny, x):
    torch.manual_seed(0)
    plain = tiny().eval()
    adapted = pliant.adapt_(copy.deepcopy(plain), pliant.Width())
    assert torch.equal(adapted(x), plain(x))
    assert set(plain.state_dict()) <= set(adapted.state_dict())


@pytest.mark.parametrize("norms", NORMS)
def test_every_width_is_a_smaller_network_of_the_same_class(tiny, make, norms, x):
    model = make(pliant.Width(choices=(0.25, 0.5, 1.0), norms=norms))
    for width, channels in (("0.25", 2), ("0.5", 4), ("1.0", 8)):
        network = pliant.extract(model, f"width={width}")
        torch.testing.assert_close(network(x), model(x, subnet=f"width={width}"), rtol=0, atol=0)
        assert type(network) is tiny
        built = tiny(channels).eval()
        built.load_state_dict(network.state_dict(), strict=True)
        assert torch.equal(built(x), network(x))
        assert network.stem.out_channels == network.layer1[0].bn1.num_features == channels


def test_a_width_is_the_whole_network_with_the_other_channels_silenced(make, x):
    model = make(pliant.Width(choices=(0.5, 1.0), norms="shared"))
    masked = pliant.extract(model, "largest")
    with torch.no_grad():
        for path in ("stem", "between"):
            masked.get_submodule(path).weight[4:] = 0
            masked.get_submodule(path).bias[4:] = 0
        for norm in masked.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight[4:] = 0
                norm.bias[4:] = 0
    torch.testing.assert_close(model(x, subnet="width=0.5"), masked(x))


def test_switching_copies_nothing(make, x):
    model = make(pliant.Width(choices=(0.5, 1.0), norms="shared"))
    seen = {}

    def look(module: nn.Module, _: object) -> None:
        seen[module] = module.weight

    for name in ("layer1.0.conv2", "fc"):
        model.get_submodule(name).register_forward_pre_hook(look)
    model(x, subnet="width=0.5")
    assert len(seen) == 2
    for module, running in seen.items():
        whole = module._parameters["weight"]
        assert running.shape[1] == 4
        assert running.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()


def test_a_shared_extract_follows_the_weights(make, x):
    model = make()
    network = pliant.extract(model, "width=0.5", share=True)
    with torch.no_grad():
        model.fc.bias.add_(1.0)
        model.get_submodule("layer1.0.conv1")._parameters["weight"].mul_(0.5)
    assert torch.equal(network(x), model(x, subnet="width=0.5"))


def test_what_was_prepared_for_inference_is_not_used_when_weights_were_moved(make, x):
    model = make()
    with torch.no_grad():
        before = model(x, subnet="width=0.5")
        model.double()
        after = model(x.double(), subnet="width=0.5")
    torch.testing.assert_close(after.float(), before)


def test_what_a_width_has_of_its_own_is_seen_when_it_is_replaced(make, x):
    model = make(pliant.Width(choices=(0.5, 1.0), norms="private"))
    name, other = "layer2.2.bn2.widths.0_5.bias", torch.full((4,), 3.0)
    with torch.no_grad():
        before = model(x, subnet="width=0.5")
        called = functional_call(model, {name: other}, (x,), {"subnet": "width=0.5"})
        assert torch.equal(model(x, subnet="width=0.5"), before)
        model.get_submodule("layer2.2.bn2.widths.0_5").bias = nn.Parameter(other)
        after = model(x, subnet="width=0.5")
    assert not torch.allclose(after, before)
    assert torch.equal(called, after)
    assert torch.equal(pliant.extract(model, "width=0.5")(x), after)


def test_what_was_prepared_for_inference_holds_no_weights_of_before(make, x):
    model = make()
    with torch.no_grad():
        model(x, subnet="width=0.5")
    before = weakref.ref(model.fc._parameters["weight"].untyped_storage())
    model.double()
    gc.collect()
    assert before() is None


def test_every_width_keeps_its_own_statistics(make, x):
    model = make(pliant.Width(choices=(0.5, 1.0)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()(x, subnet="width=0.5")
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}
    assert changed
    assert all(".widths.0_5." in name for name in changed)
    assert "layer1.0.bn1.widths.0_5.running_mean" in changed


def test_private_norms_learn_on_their_own(make, x):
    model = make(pliant.Width(choices=(0.5, 1.0), norms="private")).train()
    model(x, subnet="width=0.5").sum().backward()
    norm = model.get_submodule("layer1.0.bn1")
    assert norm._parameters["weight"].grad is None
    assert norm.get_submodule("widths.0_5").weight.grad is not None


def test_the_rest_of_a_weight_gets_no_gradient(make, x):
    model = make().train()
    model(x, subnet="width=0.25").sum().backward()
    gradient = model.get_submodule("layer2.0.conv1")._parameters["weight"].grad
    assert gradient[:2, :2].abs().sum() > 0
    assert gradient[2:].abs().sum() == gradient[:, 2:].abs().sum() == 0


def test_a_plain_checkpoint_loads_into_all_widths(tiny, make, x):
    trained = make()
    plain = pliant.extract(trained, "largest").state_dict()
    model = pliant.adapt_(tiny(), pliant.Width(choices=(0.25, 0.5, 1.0))).eval()
    model.load_state_dict(plain, strict=True)
    assert torch.equal(model(x), trained(x))
    own = model.get_submodule("layer1.0.bn1.widths.0_5")
    assert torch.equal(own.running_mean, plain["layer1.0.bn1.running_mean"][:4])


def test_a_plain_checkpoint_that_is_assigned_is_copied_into_all_widths(tiny, x):
    model = pliant.adapt_(tiny(), pliant.Width(choices=(0.5, 1.0)))
    model.load_state_dict(tiny().state_dict(), assign=True)
    before = model.get_submodule("layer1.0.bn1").running_mean.clone()
    model.train()(x, subnet="width=0.5")
    assert torch.equal(model.get_submodule("layer1.0.bn1").running_mean, before)


def test_of_channels_in_several_parts_a_plain_checkpoint_gives_those_that_run():
    """Where patches are merged, the norm of a Swin reads the channels of four of them side by side."""

    def swin(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        network = SwinTransformer([2, 2], 16, [2, 2], [2, 4], [2, 2], num_classes=5).eval()
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.3)
        return network

    width = pliant.Width(choices=(0.5, 1.0), norms="private")
    trained = swin(1)
    model, expected = pliant.adapt_(swin(2), width), pliant.adapt_(copy.deepcopy(trained), width)
    model.load_state_dict(trained.state_dict())
    image = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(image, subnet="width=0.5"), expected(image, subnet="width=0.5"))


def test_a_plain_checkpoint_of_another_size_is_refused_by_torch(tiny):
    model = pliant.adapt_(tiny(), pliant.Width(choices=(0.5, 1.0)))
    with pytest.raises(RuntimeError, match=r"size mismatch for layer1\.0\.bn1\.running_mean"):
        model.load_state_dict(tiny(4).state_dict())


def test_a_frozen_network_stays_frozen(tiny):
    model = pliant.adapt_(tiny().requires_grad_(False), pliant.Width(choices=(0.5, 1.0), norms="private"))
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_shared_statistics_of_channels_in_several_parts_are_refused():
    network = pliant.create_model("timm:ghostnet_050", num_classes=5)
    message = r"Width\.norms: got 'shared', but the channels of '.*' come in 2 parts.*'statistics' and 'private'"
    with pytest.raises(ValueError, match=message):
        pliant.adapt_(network, pliant.Width(norms="shared"), example=torch.randn(1, 3, 64, 64))
    pliant.adapt_(network, pliant.Width(), example=torch.randn(1, 3, 64, 64))


def test_stages_can_have_widths_of_their_own(make, x):
    model = make(pliant.Width(choices=(0.5, 1.0), per_stage=True))
    assert [str(subnet) for subnet in model.subnets] == ["width=0.5", "width=0.5/1.0", "width=1.0/0.5", "width=1.0"]
    network = pliant.extract(model, "width=1.0/0.5")
    assert (network.stem.weight.shape[0], network.between.weight.shape[:2]) == (8, (4, 8))
    assert torch.equal(network(x), model(x, subnet="width=1.0/0.5"))


@pytest.mark.parametrize("norms", ["statistics", "private", "shared"])
def test_there_are_no_more_views_than_a_tensor_s_own_stages_have_widths(norms, make, x):
    """Of 9 widths of two stages at 4 depths, and never a copy."""
    model = make(pliant.Width(choices=(0.25, 0.5, 1.0), per_stage=True, norms=norms), pliant.Depth())
    for norm in model.modules():
        for tensor in norm.buffers(recurse=False):  # so that no two are alike
            if tensor.is_floating_point():
                tensor += torch.rand_like(tensor)
    assert len(model.subnets) == 9 * 4
    expected = {subnet: pliant.extract(model, subnet)(x) for subnet in model.subnets}
    with torch.no_grad():
        for subnet in (*model.subnets, *reversed(model.subnets)):
            assert torch.equal(model(x, subnet=subnet), expected[subnet])
    stem, between = model.stem._pliant_views, model.between._pliant_views
    assert sum(name == "weight" for name, _ in stem) == 2, "of a quarter and of a half of the first stage"
    assert sum(name == "weight" for name, _ in between) == 3 * 3 - 1, "of both sides"
    for module in (model.stem, model.between, *model.layer1.modules(), *model.layer2.modules()):
        for (name, _), (whole, _, view) in vars(module).get("_views", {}).items():
            assert view._base is whole is module._whole(name) and view.data_ptr() == whole.data_ptr()


def test_width_and_depth_multiply(make, x):
    model = make(pliant.Width(choices=(0.5, 1.0)), pliant.Depth())
    assert len(model.subnets) == 2 * 4
    assert str(model.space.smallest) == "width=0.5,depth=TT"
    sizes = []
    for subnet in model.subnets:
        network = pliant.extract(model, subnet)
        assert torch.equal(network(x), model(x, subnet=subnet))
        assert torch.equal(network(x), model(x, subnet=str(subnet)))
        sizes.append(sum(parameter.numel() for parameter in network.parameters()))
    assert sizes[0] == min(sizes)
    assert sizes[-1] == max(sizes)
    model.train()(x, subnet="width=0.5,depth=TF")
    assert (model.state_dict()["layer1.0.bn1.skip.widths.0_5.num_batches_tracked"]) == 1


def test_the_compiled_network_switches_too(make, x):
    torch._dynamo.reset()  # what earlier tests made it give up on
    model = make()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for subnet in ("width=0.25", "width=1.0", "width=0.25"):
        torch.testing.assert_close(compiled(x, subnet=subnet), model(x, subnet=subnet))


@pytest.mark.parametrize(
    "choices", [(), (0.5,), (1.0,), (0.0, 1.0), (-0.5, 1.0), (0.5, 1.5), (1.0, 0.5), (0.5, 0.5, 1.0)]
)
def test_choices_that_make_no_sense_are_refused(choices):
    with pytest.raises(ValueError, match=re.escape(f"got {list(choices)}, expected two or more ascending shares")):
        pliant.Width(choices=choices)


def test_a_width_that_leaves_nothing_is_refused_before_anything_changes(tiny):
    model = tiny()
    with pytest.raises(ValueError, match=r"0\.1 leaves none of the 8 channels of 'layer1\.0\.conv1'"):
        pliant.adapt_(model, pliant.Width(choices=(0.1, 1.0)))
    assert type(model) is tiny
    assert type(model.stem) is nn.Conv2d


def test_channels_are_rounded_to_a_multiple(make, x):
    model = make(pliant.Width(choices=(0.3, 1.0), divisor=4))
    sizes = [pliant.extract(model, subnet).stem.out_channels for subnet in model.subnets]
    assert sizes == [4, 8]


def test_two_widths_of_the_same_channels_are_refused(tiny):
    same = r"0\.3 and 0\.6 leave the same channels in all layers of this Tiny; leave one of them out"
    with pytest.raises(ValueError, match=same + ", or take a smaller divisor"):
        pliant.adapt_(tiny(), pliant.Width(choices=(0.3, 0.6, 1.0), divisor=4))
    with pytest.raises(ValueError, match=r"0\.5 and 0\.51 leave the same channels"):
        pliant.adapt_(tiny(), pliant.Width(choices=(0.5, 0.51, 1.0)))


@pytest.mark.parametrize("text", ["width=0.3", "width=0.5/1.0", "width=x", "width=", "width=0.5,width=1.0", "TT"])
def test_widths_that_are_not_there_are_refused_by_name(make, text):
    with pytest.raises(ValueError, match=r"allowed are width=0\.25, width=0\.5 and width=1\.0") as error:
        make().space.parse(text)
    assert repr(text) in str(error.value)


def test_texts_of_widths_are_read_in_any_form():
    space = SubNetSpace((1, 1), widths=((0.5, 0.5), (0.5, 1.0), (1.0, 0.5), (1.0, 1.0)))
    assert len(space) == 16
    for subnet in space:
        assert space.parse(str(subnet)) == subnet
    half = space.parse("width=0.5,depth=TF")
    assert half.width == (0.5, 0.5)
    assert space.parse("depth=TF,width=0.5/0.5") == half
    assert space.parse("width=0.5") == space.parse("width=0.5,depth=FF")
    assert space.parse("depth=TF") == space.parse("width=1,depth=TF")
    assert next(iter(space)) == space.smallest
    assert list(space)[-1] == space.largest
    with pytest.raises(ValueError, match=r"allowed are width=0\.5, width=0\.5/1\.0, width=1\.0/0\.5 and width=1\.0"):
        space.parse("width=0.7/1.0")
    assert SubNetSpace(widths=((0.5,), (1.0,))).parse("0.5").width == (0.5,)


def test_groups_of_a_norm_go_as_a_whole():
    def norm(channels: int) -> nn.Module:
        return nn.GroupNorm(8, channels)

    model = pliant.create_model("torchvision:resnet18", num_classes=5, norm_layer=norm).eval()
    pliant.adapt_(model, pliant.Width(choices=(0.3, 1.0)))  # 2.4 groups of 8
    x = torch.randn(2, 3, 32, 32)
    network = pliant.extract(model, "width=0.3")
    assert repr(network.layer1[0].bn1) == "GroupNorm(2, 16, eps=1e-05, affine=True, bias=True)"
    torch.testing.assert_close(network(x), model(x, subnet="width=0.3"), rtol=0, atol=0)
