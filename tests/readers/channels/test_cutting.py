"""Networks cut by their groups of channels run, whole groups at a time, and give what they gave without the rest."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from pliant.core.anatomy import Anatomy, ChannelGroup
from pliant.core.inputs import logits_of
from pliant.readers import read
from pliant.readers.channels import channel_groups

from .conftest import cut_down, everything, half, mixed, silence, with_statistics
from .networks import CASES, Case


@dataclass
class Read:
    """A case and what was found in it."""

    case: Case
    model: nn.Module
    anatomy: Anatomy
    groups: tuple[ChannelGroup, ...]
    image: Tensor

    def logits(self, model: nn.Module | None = None) -> Tensor:
        with torch.no_grad():
            return logits_of((model or self.model)(self.image))


@pytest.fixture(scope="module", params=list(CASES))
def found(request: pytest.FixtureRequest) -> Read:
    case = CASES[request.param]
    torch.manual_seed(0)
    model = with_statistics(case.make())
    image = torch.randn(2, 3, case.size, case.size)
    anatomy = read(model)
    return Read(case, model, anatomy, channel_groups(model, anatomy, case.size), image)


def test_all_units_are_the_network_itself(found: Read) -> None:
    assert torch.equal(found.logits(cut_down(found.model, found.groups, everything)), found.logits())


def test_half_of_all_units_runs_and_every_layer_is_half_as_wide(found: Read) -> None:
    small = cut_down(found.model, found.groups, half)
    assert found.logits(small).shape == found.logits().shape
    layers = [(path, part) for path, part in found.model.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    heads = [layer.weight for _, layer in layers if layer.weight.shape[0] == found.anatomy.num_classes]
    for path, layer in layers:
        if any(part in path for part in found.case.whole):
            continue
        (outputs, inputs), cut = layer.weight.shape[:2], small.get_submodule(path).weight
        assert isinstance(cut, Tensor)
        stays = any(layer.weight is head for head in heads)
        assert cut.shape[0] == outputs if stays else outputs // 3 <= cut.shape[0] <= -(-outputs // 2), path
        stays = path == layers[0][0] or getattr(layer, "groups", 1) > 1
        assert cut.shape[1] == inputs if stays else inputs // 3 <= cut.shape[1] <= -(-inputs // 2), path
        assert cut.shape[2:] == layer.weight.shape[2:]


def test_numbers_tell_the_truth(found: Read) -> None:
    small = cut_down(found.model, found.groups, mixed)
    for module in small.modules():
        match module:
            case nn.Conv2d():
                assert module.weight.shape[:2] == (module.out_channels, module.in_channels // module.groups)
            case nn.Linear():
                assert module.weight.shape == (module.out_features, module.in_features)
            case nn.BatchNorm2d():
                assert module.weight.shape == module.bias.shape == (module.num_features,)
                assert module.running_mean is not None and module.running_mean.shape == module.weight.shape
            case nn.LayerNorm():
                assert module.weight.shape == module.normalized_shape
            case nn.GroupNorm():
                assert module.weight.shape == (module.num_channels,)
            case nn.MultiheadAttention():
                assert module.embed_dim == module.kdim == module.vdim == module.num_heads * module.head_dim


def test_groups_are_cut_one_by_one(found: Read) -> None:
    assert found.logits(cut_down(found.model, found.groups, mixed)).shape == found.logits().shape


def test_channels_that_give_zeros_can_be_cut_off(found: Read) -> None:
    """Batch norms and group norms do not see what is beside them; layer norms see it as zeros."""
    norms = {path for path, module in found.model.named_modules() if isinstance(module, nn.LayerNorm)}
    groups = [group for group in found.groups if norms.isdisjoint(cut.path for cut in group.cuts)]
    expected = found.logits(silence(found.model, groups, half))
    torch.testing.assert_close(found.logits(cut_down(found.model, groups, half)), expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found.logits(), expected, rtol=1e-2, atol=1e-3)


def test_every_tensor_is_cut_once_and_every_stage_has_groups(found: Read) -> None:
    places = [(cut.path, cut.name, cut.dim) for group in found.groups for cut in group.cuts]
    assert len(set(places)) == len(places)
    stages = set(range(len(found.anatomy.stages))) - set(found.case.shared)
    assert {group.stage for group in found.groups} == stages
    assert all(group.units > 1 for group in found.groups)
