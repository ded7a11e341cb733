import pytest
import torch

import pliant
from pliant.create import ModelSource, identify


@pytest.mark.parametrize(
    "name",
    [
        "torchvision:resnet18",
        "torchvision:resnext50_32x4d",
        "timm:resnet26d",
        "timm:seresnet50",
        "pliant:resnet32",
    ],
)
def test_a_model_is_found_again_by_its_structure(name):
    with torch.device("meta"):
        model = pliant.create_model(name, num_classes=7)
    assert identify(model) == ModelSource(name=name, num_classes=7)


def test_a_structure_that_no_library_makes_has_no_name():
    with torch.device("meta"):
        model = pliant.create_model("torchvision:resnet18")
        model.maxpool = torch.nn.Identity()
    assert identify(model) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50", "expected LIBRARY:MODEL with LIBRARY one of torchvision, timm, "),
        ("keras:resnet50", "one of torchvision, timm, .*pliant"),
        ("torchvision:", "expected LIBRARY:MODEL"),
        ("torchvision:resnet51", "nearest of .*resnet50"),
        ("timm:resnet50dd", "nearest of .*resnet50d"),
        ("pliant:resnet21", "nearest of .*resnet20"),
    ],
)
def test_an_unknown_model_is_refused_with_what_is_near(name, message):
    with pytest.raises(ValueError, match=message) as error:
        pliant.create_model(name)
    assert "\n" not in str(error.value)


def test_options_that_the_library_does_not_take_are_refused():
    with pytest.raises(ValueError, match="are not what it takes"):
        pliant.create_model("pliant:resnet20", colour=3)
    with pytest.raises(ValueError, match="colour"):
        pliant.create_model("torchvision:resnet18", colour=3)


def test_stochastic_depth_of_a_swin_is_an_option_that_is_found_again():
    with torch.device("meta"):
        model = pliant.create_model("torchvision:swin_t", num_classes=7, stochastic_depth_prob=0.03)
    options = {"stochastic_depth_prob": 0.03}
    assert identify(model) == ModelSource(name="torchvision:swin_t", num_classes=7, options=options)
    with pytest.raises(ValueError, match=r"stochastic_depth_prob: got 1\.3, expected 0 to 1"):
        pliant.create_model("torchvision:swin_t", stochastic_depth_prob=1.3)


def test_own_networks_have_the_sizes_of_the_paper():
    """He et al., Table 6: 0.27, 0.46, 0.66, 0.85 and 1.7 million parameters."""
    for layers, millions in {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.73}.items():
        with torch.device("meta"):
            model = pliant.create_model(f"pliant:resnet{layers}")
        assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)


def test_own_networks_have_no_pretrained_weights():
    with pytest.raises(ValueError, match="no pretrained weights"):
        pliant.create_model("pliant:resnet20", pretrained=True)
