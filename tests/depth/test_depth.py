"""Structure: what is mandatory, what is skipped, which norms get a second set."""

import copy

import pytest
import torch
from torch import nn

import pliant
from pliant.core.anatomy import Anatomy, Block, Stage
from pliant.core.subnet import SubNetSpace
from pliant.depth.modules import SkipAwareNorm
from pliant.depth.plan import PLANS
from pliant.depth.transform import mandatory_blocks
from pliant.plans import build_plan


def anatomy(*lengths: int, keeps_shape: bool = True) -> Anatomy:
    stages = tuple(
        Stage(
            path=f"s{index}",
            channels=4,
            blocks=tuple(Block(path=f"s{index}.{j}", norms=(), keeps_shape=keeps_shape) for j in range(length)),
        )
        for index, length in enumerate(lengths)
    )
    return Anatomy(family="test network", stages=stages, head="fc", num_classes=10)


@pytest.mark.parametrize(
    ("lengths", "mandatory"),
    [
        ((3, 4, 6, 3), (2, 2, 3, 2)),  # ResNet-50, methods of the paper
        ((3, 4, 23, 3), (2, 2, 12, 2)),  # ResNet-101
        ((2, 2, 2, 2), (1, 1, 1, 1)),
        ((1, 2, 9), (1, 1, 5)),
    ],
)
def test_the_paper_s_split_into_mandatory_and_skippable(lengths, mandatory):
    assert mandatory_blocks(anatomy(*lengths), pliant.Depth()) == mandatory


def test_the_split_can_be_set():
    config = pliant.Depth(mandatory=(3, 1))
    assert mandatory_blocks(anatomy(3, 4), config) == (3, 1)
    with pytest.raises(ValueError, match=r"got \[3, 1\], but the stages of this test network have \[3, 4, 2\] blocks"):
        mandatory_blocks(anatomy(3, 4, 2), config)
    with pytest.raises(ValueError, match=r"stages of this test network have \[2, 4\]"):
        mandatory_blocks(anatomy(2, 4), config)
    with pytest.raises(ValueError, match="at least 1"):
        pliant.Depth(mandatory=(0, 1))


def test_nothing_to_skip_is_refused_with_what_would_be_needed():
    with pytest.raises(ValueError, match=r"no skippable stage.*at least two blocks"):
        mandatory_blocks(anatomy(1, 1), pliant.Depth())


def test_a_block_that_changes_the_shape_cannot_be_skipped():
    with pytest.raises(ValueError, match=r"'s0\.1' changes the shape"):
        mandatory_blocks(anatomy(2, keeps_shape=False), pliant.Depth())


def test_second_sets_of_resnet50_are_where_the_published_checkpoints_have_them():
    """135 extra tensors: bn1, bn2, bn3 of the mandatory blocks; not of the stem, not of the shortcuts."""
    model = pliant.adapt_(pliant.create_model("torchvision:resnet50"), pliant.Depth())
    extra = [key for key in model.state_dict() if ".skip." in key]
    assert len(extra) == 135
    blocks = {key.rpartition(".bn")[0] for key in extra}
    assert blocks == {
        f"layer{stage}.{block}"
        for stage, count in zip((1, 2, 3, 4), (2, 2, 3, 2), strict=True)
        for block in range(count)
    }
    assert not any("downsample" in key for key in extra)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == 25_557_032 + 26_112


def test_without_skip_aware_norms_there_is_one_set():
    model = pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Depth(skip_aware_norms=False))
    assert not any(isinstance(module, SkipAwareNorm) for module in model.modules())
    images = torch.rand(2, 3, 32, 32)
    model.eval()
    for subnet in model.subnets:
        assert torch.equal(model(images, subnet=subnet), pliant.extract(model, subnet)(images))


def test_only_the_norms_that_ran_collect_statistics():
    model = pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Depth()).train()
    before = copy.deepcopy(model.state_dict())
    model(torch.rand(4, 3, 32, 32), subnet="TFF")
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert {key for key in changed if key.startswith("layer1")} == {
        f"layer1.{block}.bn{norm}.skip.{name}"
        for block in (0, 1)
        for norm in (1, 2)
        for name in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert not any(".skip." in key for key in changed if not key.startswith("layer1"))


def test_a_plain_checkpoint_that_is_assigned_is_copied_into_the_second_set():
    model = pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Depth())
    model.load_state_dict(pliant.create_model("pliant:resnet20").state_dict(), assign=True)
    norm = next(module for module in model.modules() if isinstance(module, SkipAwareNorm))
    before = norm.state_dict()["running_mean"].clone(), norm.weight.clone()
    with torch.no_grad():
        norm.skip.weight.add_(1)
        norm.skip.running_mean.add_(1)
    assert torch.equal(norm.running_mean, before[0])
    assert torch.equal(norm.weight, before[1])


def test_a_second_adaptation_is_refused():
    model = pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Depth())
    with pytest.raises(ValueError, match="adapted already"):
        pliant.adapt_(model, pliant.Depth())


def test_what_is_no_config_is_refused():
    model = pliant.create_model("pliant:resnet20")
    with pytest.raises(ValueError, match="no config"):
        pliant.adapt_(model)
    with pytest.raises(ValueError, match=r"expected at most one each of: pliant\.Depth"):
        pliant.adapt_(model, "depth")  # type: ignore[arg-type]


def test_an_unsupported_network_is_refused_and_what_is_supported_is_said():
    with pytest.raises(ValueError, match=r"Sequential has no residual stages.*supported: ResNets.*pass example="):
        pliant.adapt_(nn.Sequential(nn.Linear(3, 3)), pliant.Depth())
    with pytest.raises(ValueError, match=r"AlexNet.*supported"):
        pliant.adapt_(pliant.create_model("torchvision:alexnet"), pliant.Depth())


def test_shared_blocks_are_refused_and_the_model_is_left_alone():
    model = pliant.create_model("pliant:resnet20")
    model.layer1[2] = model.layer1[1]
    with pytest.raises(ValueError, match=r"'layer1\.1' and 'layer1\.2' are one shared module"):
        pliant.adapt_(model, pliant.Depth())
    tied = pliant.create_model("pliant:resnet20")
    tied.layer2[2].conv1.weight = tied.layer2[1].conv1.weight
    with pytest.raises(ValueError, match="tied weights"):
        pliant.adapt_(tied, pliant.Depth())
    for refused in (model, tied):
        assert type(refused).__name__ == "CifarResNet"
        assert not any(isinstance(module, SkipAwareNorm) for module in refused.modules())


def test_a_persons_own_network_that_describes_itself_is_adapted():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = pliant.create_model("pliant:resnet20")

        def forward(self, x):
            return self.body(x)

        def anatomy(self):
            inner = self.body.anatomy()
            blocks = tuple(
                Block(
                    path=f"body.{block.path}",
                    norms=tuple(f"body.{norm}" for norm in block.norms),
                    keeps_shape=True,
                )
                for block in inner.stages[0].blocks
            )
            stage = Stage(path="body.layer1", channels=16, blocks=blocks)
            return Anatomy(family="own network", stages=(stage,), head="body.fc", num_classes=10)

    model = pliant.adapt_(Own(), pliant.Depth()).eval()
    images = torch.rand(1, 3, 32, 32)
    assert [str(subnet) for subnet in model.subnets] == ["T", "F"]
    assert torch.equal(pliant.extract(model, "T")(images), model(images, subnet="T"))


@pytest.mark.parametrize("name", PLANS)
def test_every_plan_names_the_sub_networks_of_the_model(name):
    plan = build_plan(name, SubNetSpace(skippable_blocks=(1, 2)))
    assert plan.passes() == ("FF", "TT")


def test_unknown_plans_and_options_are_refused():
    space = SubNetSpace(skippable_blocks=(1,))
    with pytest.raises(ValueError, match="unknown plan 'and'; allowed: adn, "):
        build_plan("and", space)
    with pytest.raises(ValueError, match="no option 'alhpa'; allowed: alpha, temperature"):
        build_plan("adn", space, alhpa=0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        build_plan("adn", space, alpha=1)
