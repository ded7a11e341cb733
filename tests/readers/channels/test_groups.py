"""What belongs to a group, how it is counted, and which stage it is of."""

from __future__ import annotations

import dataclasses
from types import ModuleType

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.vision_transformer import VisionTransformer

from pliant.core.anatomy import Anatomy, ChannelGroup, Cut
from pliant.core.macs import count_gmacs
from pliant.readers import read
from pliant.readers.channels import channel_groups

from .conftest import cut_down, half, mixed
from .networks import CASES


def groups_of(model: nn.Module, size: int = 32) -> tuple[ChannelGroup, ...]:
    return channel_groups(model, read(model), size)


def group_with(groups: tuple[ChannelGroup, ...], path: str, name: str = "weight", dim: int | None = 0) -> ChannelGroup:
    (found,) = [group for group in groups if (path, name, dim) in {(cut.path, cut.name, cut.dim) for cut in group.cuts}]
    return found


def cut_of(groups: tuple[ChannelGroup, ...], path: str, name: str = "weight", dim: int | None = 0) -> Cut:
    cuts = [cut for group in groups for cut in group.cuts]
    (found,) = [cut for cut in cuts if (cut.path, cut.name, cut.dim) == (path, name, dim)]
    return found


def test_resnet_50_has_the_macs_of_the_slimmable_one() -> None:
    """4.1, 2.3, 1.1 and 0.278 G of Yu et al., "Slimmable Neural Networks", table 3."""
    with torch.device("meta"):
        model = torchvision.models.resnet50().eval()
    groups = groups_of(model, 64)
    for quarters, expected in ((4, 4.1), (3, 2.3), (2, 1.1), (1, 0.278)):
        small = cut_down(model, groups, lambda index, group, quarters=quarters: group.units * quarters // 4)
        assert count_gmacs(small, 224) == pytest.approx(expected, rel=0.05)
        if quarters == 2:
            assert small.get_parameter("conv1.weight").shape == (32, 3, 7, 7)
            assert small.get_parameter("fc.weight").shape == (1000, 1024)


def test_groups_come_in_order_of_execution_and_name_all_that_agrees() -> None:
    groups = groups_of(ResNet(BasicBlock, [2, 1, 1, 1], num_classes=5))
    assert [group.units for group in groups] == [64, 64, 64, 128, 128, 256, 256, 512, 512]
    stem, inner = groups[0], groups[1]
    assert {(cut.path, cut.name, cut.dim) for cut in inner.cuts} == {
        ("layer1.0.conv1", "weight", 0),
        ("layer1.0.conv1", "out_channels", None),
        *(("layer1.0.bn1", name, 0) for name in ("weight", "bias", "running_mean", "running_var")),
        ("layer1.0.bn1", "num_features", None),
        ("layer1.0.conv2", "weight", 1),
        ("layer1.0.conv2", "in_channels", None),
    }
    together = {cut.path for cut in stem.cuts if cut.name == "weight" and cut.dim == 0}
    assert together >= {"conv1", "layer1.0.conv2", "layer1.1.conv2", "layer1.1.bn2"}
    assert {"layer2.0.conv1", "layer2.0.downsample.0"} <= {cut.path for cut in stem.cuts if cut.dim == 1}


def test_the_stem_belongs_to_the_first_stage_and_the_end_to_the_last() -> None:
    model = torchvision.models.mobilenet_v2(num_classes=5)
    anatomy, groups = read(model), groups_of(model)
    assert len(anatomy.stages) == 5
    assert group_with(groups, "features.0.0").stage == 0
    assert group_with(groups, "features.18.0").stage == 4
    assert group_with(groups, "features.4.conv.2").stage == 1  # the first block of the second stage leads to it
    assert [group.stage for group in groups] == sorted(group.stage for group in groups)


def test_a_layer_between_stages_belongs_to_the_stage_behind_it() -> None:
    groups = groups_of(CASES["torchvision convnext"].make())
    assert group_with(groups, "features.2.1").stage == 1
    assert group_with(groups, "features.0.0").stage == 0


def test_stages_that_share_a_residual_stream_are_one() -> None:
    model = VisionTransformer(32, 8, 4, 2, 16, 32, num_classes=5)
    anatomy = read(model)
    (column,) = anatomy.stages
    stages = tuple(dataclasses.replace(column, blocks=column.blocks[start : start + 2]) for start in (0, 2))
    groups = channel_groups(model, dataclasses.replace(anatomy, stages=stages), 32)
    assert len(groups) == 5
    assert {group.stage for group in groups} == {0}


def test_stages_linked_through_a_third_are_one_and_others_are_not(own: ModuleType) -> None:
    """The second and the third of four share channels."""

    class Linked(own.Cnn):
        def __init__(self) -> None:
            super().__init__(own.Basic, (2, 2, 2))
            self.stages.insert(2, nn.Sequential(own.Basic(16, 16), own.Basic(16, 16)))

    model = Linked().eval()
    anatomy = anatomy_of(model, [f"stages.{number}" for number in range(4)])
    groups = channel_groups(model, anatomy, 16)
    assert {group_with(groups, f"stages.{number}.1.conv1").stage for number in range(4)} == {0, 1, 3}
    assert group_with(groups, "stages.2.1.conv1").stage == 1
    assert group_with(groups, "stages.3.1.conv1").stage == 3


def anatomy_of(model: nn.Module, paths: list[str], channel_dim: int = 1) -> Anatomy:
    """An anatomy whose stages are sequentials of blocks."""
    from pliant.readers.parts import read_blocks, read_stage

    stages = tuple(read_stage(model, path, read_blocks(model, path), channel_dim=channel_dim) for path in paths)
    return Anatomy(family="own network", stages=stages, head="head", num_classes=5)


def test_queries_keys_and_values_of_one_layer_are_three_parts() -> None:
    groups = groups_of(CASES["timm vit"].make())
    qkv = group_with(groups, "blocks.0.attn.qkv")
    assert qkv.units == 3
    for name in ("weight", "bias"):
        cut = cut_of(groups, "blocks.0.attn.qkv", name)
        assert (cut.parts, cut.per_unit) == (3, 64)
    assert cut_of(groups, "blocks.0.attn.proj", dim=1).per_unit == 64
    assert cut_of(groups, "blocks.0.attn", "num_heads", None).per_unit == 1
    assert cut_of(groups, "blocks.0.attn", "attn_dim", None).per_unit == 64
    assert group_with(groups, "patch_embed.proj").units == 192
    assert cut_of(groups, "", "pos_embed", 2).per_unit == 1


def test_torchs_attention_shares_heads_with_the_stream() -> None:
    model = VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=5)
    stream, *others = groups_of(model)
    path = "encoder.layers.encoder_layer_1.self_attention"
    assert stream.units == 4
    assert [group.units for group in others] == [64, 64]
    groups = (stream,)
    cut = cut_of(groups, path, "in_proj_weight")
    assert (cut.parts, cut.per_unit) == (3, 8)
    assert (cut_of(groups, path, "num_heads", None).per_unit, cut_of(groups, path, "embed_dim", None).per_unit) == (
        1,
        8,
    )
    assert cut_of(groups, "", "hidden_dim", None).per_unit == cut_of(groups, "", "class_token", 2).per_unit == 8
    small = cut_down(model, (stream,), half)
    assert isinstance(small, VisionTransformer) and small.hidden_dim == 16
    assert small.get_parameter("encoder.pos_embedding").shape == (1, 17, 16)


def test_an_attention_of_timm_that_counts_no_channels_of_its_own_shares_heads_with_the_stream() -> None:
    """As BEiT's does, and all of timm's did once: they take the width of what came in."""
    groups = groups_of(CASES["timm beit"].make())
    assert group_with(groups, "blocks.0.attn.qkv") is group_with(groups, "patch_embed.proj")
    assert group_with(groups, "patch_embed.proj").units == 4


def test_transformers_attention_says_how_many_heads_are_left() -> None:
    groups = groups_of(CASES["transformers vit"].make())
    cut = cut_of(groups, "vit.layers.0.attention", "num_attention_heads", None)
    assert (cut.parts, cut.per_unit) == (1, 1)


def test_units_are_the_groups_of_a_grouped_convolution() -> None:
    groups = groups_of(ResNet(Bottleneck, [1, 1, 1, 1], num_classes=5, groups=32, width_per_group=4))
    grouped = group_with(groups, "layer2.0.conv2")
    assert grouped.units == 32
    assert cut_of(groups, "layer2.0.conv2").per_unit == 8
    assert cut_of(groups, "layer2.0.conv2", "groups", None).per_unit == 1
    assert cut_of(groups, "layer2.0.conv2", "in_channels", None).per_unit == 8
    assert not [cut for group in groups for cut in group.cuts if cut.path == "layer2.0.conv2" and cut.dim == 1]


def test_units_are_the_groups_of_a_group_norm() -> None:
    groups = groups_of(CASES["timm resnet with group norms"].make())
    assert {group.units for group in groups} == {32}
    assert cut_of(groups, "layer1.0.bn3", "num_channels", None).per_unit == 8
    assert cut_of(groups, "layer1.0.bn3", "num_groups", None).per_unit == 1


def test_a_network_of_ones_own_is_cut(own: ModuleType) -> None:
    for name in own.OWN.keys() - {"tabular"}:
        case = own.OWN[name]
        model, x = case.make().eval(), case.example()
        groups = channel_groups(model, read(model, x), 16)
        small = cut_down(model, groups, half)
        assert answer(small(x)).shape == answer(cut_down(model, groups, mixed)(x)).shape == (2, 5)
        assert sum(map(torch.numel, small.parameters())) < 0.7 * sum(map(torch.numel, model.parameters())), name


def answer(output: Tensor | dict[str, Tensor]) -> Tensor:
    return output["logits"] if isinstance(output, dict) else output


def test_a_network_for_texts_is_cut() -> None:
    import transformers

    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    model = transformers.BertForSequenceClassification(config).eval()
    groups = groups_of(model, 12)
    words = "bert.embeddings.word_embeddings"
    assert group_with(groups, words, dim=1).units == 32
    assert cut_of(groups, words, "embedding_dim", None).per_unit == 1
    small = cut_down(model, groups, mixed)
    assert small(torch.randint(50, (2, 12))).logits.shape == (2, 2)


def test_the_model_stays_as_it_was() -> None:
    model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    hooks = [len(module._forward_hooks) for module in model.modules()]
    groups_of(model)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    convolution = model.get_submodule("layer1.0.conv1")
    assert isinstance(convolution, nn.Conv2d) and convolution.out_channels == 64
