"""What operators do to channels: one residual block, between whose two convolutions each stands in turn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pliant.core.anatomy import Anatomy, Block, ChannelGroup, Cut, Stage
from pliant.readers.channels import channel_groups
from pliant.readers.channels.labels import Shape, fresh, leaves
from pliant.readers.channels.operation import Operation
from pliant.readers.channels.operators import dimensions_of_outputs

from .conftest import cut_down, half

Middle = Callable[[Tensor, Tensor], Tensor]


class Branch(nn.Module):
    """A block with `inner` channels on its branch, of which `taken` come out of what stands in the middle."""

    def __init__(self, middle: Middle, inner: int, taken: int, layer: nn.Module | None) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(6, inner, 1), nn.Conv2d(taken, 6, 1)
        self.layer = layer or nn.Identity()
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.middle(self.layer(self.first(x)), x))


class Net(nn.Module):
    def __init__(self, middle: Middle, inner: int = 8, taken: int = 8, layer: nn.Module | None = None) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 6, 3, padding=1), Branch(middle, inner, taken, layer)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.stem(x)).mean((2, 3)))

    def groups(self) -> tuple[ChannelGroup, ...]:
        stage = Stage(path="block", channels=6, blocks=(Block(path="block", norms=(), keeps_shape=True),))
        anatomy = Anatomy(family="own network", stages=(stage,), head="head", num_classes=5)
        groups = channel_groups(self, anatomy, 9)
        assert cut_down(self, groups, half)(torch.randn(2, 3, 9, 9)).shape == (2, 5)
        return groups


def cut_of(groups: tuple[ChannelGroup, ...], path: str, dim: int) -> tuple[int, Cut] | None:
    """How many units the weight of a layer has in a dimension, and how it is cut there."""
    found = [
        (group.units, cut)
        for group in groups
        for cut in group.cuts
        if (cut.path, cut.name, cut.dim) == (path, "weight", dim)
    ]
    return found[0] if found else None


def normalized(y: Tensor, x: Tensor) -> Tensor:
    return F.layer_norm(y.permute(0, 2, 3, 1), y.shape[1:2]).permute(0, 3, 1, 2)


def gated_by_halves(y: Tensor, x: Tensor) -> Tensor:
    count = y.shape[1] // 2
    return y[:, :count] * y[:, count:].sigmoid()


def shuffled(y: Tensor, x: Tensor) -> Tensor:
    return y.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


FREE: dict[str, Middle] = {
    "activations": lambda y, x: F.hardswish(F.gelu(y)).clamp(-1, 1).clone() + F.leaky_relu(y, inplace=True),
    "a norm without weights": normalized,
    "a mean over channels": lambda y, x: y - y.mean(1, keepdim=True) + y.amax(1, keepdim=True),
    "weights over places": lambda y, x: y.flatten(2).softmax(-1).view_as(y),
    "places moved": lambda y, x: F.pad(y.roll(1, 2).flip(3), (0, 1, 1, 0))[:, :, 1:, :-1],
    "pools": lambda y, x: F.interpolate(F.max_pool2d(y, 3) + F.adaptive_avg_pool2d(y, 3), scale_factor=3.0),
    "pieces that come together again": lambda y, x: torch.stack([y, y.sin()]).sum(0),
    "an in-place addition": lambda y, x: y.add_(x.mean(1, keepdim=True)).mul_(2),
    "a batch that is not of one": lambda y, x: y * y.mean((2, 3), keepdim=True).squeeze()[:, :, None, None],
    "a batch of one taken out": lambda y, x: y[None].squeeze(0).contiguous(),
}


@pytest.mark.parametrize("name", FREE)
def test_channels_go_on(name: str) -> None:
    groups = Net(FREE[name]).groups()
    for path, dim in (("block.first", 0), ("block.second", 1)):
        found = cut_of(groups, path, dim)
        assert found is not None
        assert (found[0], found[1].parts, found[1].per_unit) == (8, 1, 1)


HALVES: dict[str, Middle] = {
    "chunk": lambda y, x: y.chunk(2, 1)[0] * y.chunk(2, 1)[1],
    "gated linear unit": lambda y, x: F.glu(y, 1),
    "slices": gated_by_halves,
    "unbound": lambda y, x: y.unflatten(1, (2, -1)).unbind(1)[1],
}


@pytest.mark.parametrize("name", HALVES)
def test_equal_pieces_are_cut_each(name: str) -> None:
    groups = Net(HALVES[name], 8, 4).groups()
    units, cut = cut_of(groups, "block.first", 0) or (0, None)
    assert cut is not None and (units, cut.parts) == (4, 2)
    units, cut = cut_of(groups, "block.second", 1) or (0, None)
    assert cut is not None and (units, cut.parts) == (4, 1)


@pytest.mark.parametrize("middle", [lambda y, x: torch.cat([y, y.relu()], 1), lambda y, x: y.repeat(1, 2, 1, 1)])
def test_the_same_channels_joined_are_cut_each(middle: Middle) -> None:
    groups = Net(middle, 8, 16).groups()
    units, cut = cut_of(groups, "block.second", 1) or (0, None)
    assert cut is not None and (units, cut.parts) == (8, 2)
    units, cut = cut_of(groups, "block.first", 0) or (0, None)
    assert cut is not None and (units, cut.parts) == (8, 1)


def test_halves_that_are_shuffled_have_several_entries_a_unit() -> None:
    groups = Net(shuffled).groups()
    units, cut = cut_of(groups, "block.second", 1) or (0, None)
    assert cut is not None and (units, cut.parts, cut.per_unit) == (4, 1, 2)
    units, cut = cut_of(groups, "block.first", 0) or (0, None)
    assert cut is not None and (units, cut.parts, cut.per_unit) == (4, 2, 1)


STUCK: dict[str, tuple[Middle, int]] = {
    "the order turned": (lambda y, x: y.flip(1), 8),
    "weights over channels": (lambda y, x: y.softmax(1), 8),
    "an operator without a rule": (lambda y, x: y.cumsum(1), 8),
    "unequal pieces": (lambda y, x: y.split((3, 5), 1)[1], 5),
    "a piece by number": (lambda y, x: y[:, 1:4], 3),
    "zeros beside them": (lambda y, x: F.pad(y, (0, 0, 0, 0, 1, 1)), 10),
    "numbers": (lambda y, x: y + torch.arange(8, device=y.device)[:, None, None], 8),
    "windows over channels": (lambda y, x: F.max_pool1d(y.flatten(2).mT, 2).mT.unflatten(2, (9, 9)), 4),
    "every pair of channels": (lambda y, x: (y.unsqueeze(1) * y.unsqueeze(2)).flatten(1, 2), 64),
    "products with each other": (lambda y, x: (y.flatten(2) @ y.flatten(2).mT @ y.flatten(2)).view_as(y), 8),
}


@pytest.mark.parametrize("name", STUCK)
def test_channels_that_are_not_independent_stay(name: str) -> None:
    middle, taken = STUCK[name]
    groups = Net(middle, 8, taken).groups()
    assert cut_of(groups, "block.first", 0) is None
    assert cut_of(groups, "block.second", 1) is None
    assert [group.units for group in groups] == [6]


class Scaled(nn.Module):
    """Has a tensor that it did not register."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.rand(8, 1, 1)

    def forward(self, y: Tensor) -> Tensor:
        return y * self.scale


@pytest.mark.parametrize("layer", [Scaled(), nn.LayerNorm([8, 9, 9])], ids=["a plain tensor", "several numbers"])
def test_layers_that_cannot_be_cut_keep_their_channels(layer: nn.Module) -> None:
    assert [group.units for group in Net(lambda y, x: y, layer=layer).groups()] == [6]


LAYERS: dict[str, tuple[nn.Module, str]] = {
    "one group of all channels": (nn.GroupNorm(1, 8), "num_channels"),
    "a slope a channel": (nn.PReLU(8), "num_parameters"),
    "depthwise": (nn.Conv2d(8, 8, 3, padding=1, groups=8), "groups"),
    "transposed": (nn.ConvTranspose2d(8, 8, 1), "in_channels"),
    "batch norm without weights": (nn.BatchNorm2d(8), "num_features"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_shrink_with_their_numbers(name: str) -> None:
    layer, number = LAYERS[name]
    groups = Net(lambda y, x: y, layer=layer).groups()
    places = {(cut.path, cut.name): (group.units, cut.per_unit) for group in groups for cut in group.cuts}
    assert places["block.layer", number] == (8, 1)


def test_a_depthwise_convolution_may_multiply_channels() -> None:
    groups = Net(lambda y, x: y, 8, 16, nn.Conv2d(8, 16, 3, padding=1, groups=8)).groups()
    units, cut = cut_of(groups, "block.layer", 0) or (0, None)
    assert cut is not None and (units, cut.per_unit) == (8, 2)


def test_a_flattened_image_has_many_entries_a_channel() -> None:
    class Flat(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.block(self.stem(x)).flatten(1))

    net = Flat(lambda y, x: y)
    net.head = nn.Linear(6 * 81, 5)
    units, cut = cut_of(net.groups(), "head", 1) or (0, None)
    assert cut is not None and (units, cut.per_unit) == (6, 81)


def test_tied_weights_are_named_for_each_module() -> None:
    net = Net(lambda y, x: y, layer=nn.Conv2d(8, 8, 1))
    twin = nn.Conv2d(8, 8, 1)
    assert isinstance(net.block.layer, nn.Conv2d)
    twin.weight = net.block.layer.weight
    net.block.layer = nn.Sequential(net.block.layer, twin)
    groups = net.groups()
    assert cut_of(groups, "block.layer.0", 0) is not None
    assert cut_of(groups, "block.layer.1", 0) is not None


class Cross(nn.Module):
    """Attention in which keys and values have a width of their own, and weights of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Linear(8, 4)
        self.attention = nn.MultiheadAttention(8, 2, kdim=4, vdim=4, batch_first=True)

    def forward(self, y: Tensor) -> Tensor:
        tokens = y.flatten(2).mT
        narrow = self.narrow(tokens)
        return self.attention(tokens, narrow, narrow)[0].mT.view_as(y)


def test_keys_may_have_a_width_of_their_own() -> None:
    groups = Net(lambda y, x: y, layer=Cross()).groups()
    numbers = {
        cut.name: (group.units, cut.per_unit)
        for group in groups
        for cut in group.cuts
        if cut.path == "block.layer.attention" and cut.dim is None
    }
    assert numbers == {"embed_dim": (2, 4), "num_heads": (2, 1), "kdim": (4, 1), "vdim": (4, 1)}


def operation(name: str, values: dict[str, Tensor], output: Tensor, shapes: dict[int, Shape]) -> Operation:
    return Operation(
        name=name,
        values=values,
        outputs=[output],
        where="'layer'",
        known=lambda tensor: shapes.setdefault(id(tensor), fresh(tensor.shape)),
        is_weight=lambda tensor: False,
        made=lambda dimension: None,
    )


@pytest.mark.parametrize("key_heads", [4, 2])
def test_fused_attention_goes_on_with_heads_unless_they_are_shared(key_heads: int) -> None:
    """Which operator attention becomes depends on the version of torch and on the device."""
    query, key, value = (torch.empty(2, heads, 5, 3) for heads in (4, key_heads, key_heads))
    mask, shapes = torch.empty(4, 5, 5), {}
    values = {"query": query, "key": key, "value": value, "attn_mask": mask}
    ((batch, heads, tokens, channels),) = dimensions_of_outputs(
        operation("_scaled_dot_product_flash_attention_for_cpu", values, query, shapes),
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    )
    assert [label.reason is None for dimension in (batch, heads, tokens, channels) for label in leaves(dimension)] == [
        True,
        key_heads == 4,
        False,
        False,
    ]
    assert leaves(shapes[id(mask)][0]) == leaves(heads)
    assert (leaves(shapes[id(value)][1]) == leaves(heads)) is (key_heads == 4)


def test_a_linear_layer_that_is_one_operator() -> None:
    x, weight, bias = torch.empty(2, 5, 3), torch.empty(4, 3), torch.empty(4)
    shapes: dict[int, Shape] = {}
    call = operation("linear", {"input": x, "weight": weight, "bias": bias}, torch.empty(2, 5, 4), shapes)
    (result,) = dimensions_of_outputs(call, torch.ops.aten.linear.default)
    assert leaves(shapes[id(x)][2]) == leaves(shapes[id(weight)][1])
    assert leaves(result[2]) == leaves(shapes[id(weight)][0]) == leaves(shapes[id(bias)][0])
    assert leaves(result[1]) == leaves(shapes[id(x)][1])


def test_an_operator_in_a_form_that_its_rule_does_not_know_fixes_all() -> None:
    x, shapes = torch.empty(2, 5), {}
    call = operation("t", {"self": x}, torch.empty(2, 5), shapes)
    (result,) = dimensions_of_outputs(call, torch.ops.aten.t.default)
    assert all(label.reason for dimension in (*result, *shapes[id(x)]) for label in leaves(dimension))
