"""A name and options are found for every family that pliant reads, or none where there are none."""

import threading

import pytest
import torch

from pliant.core.weightless import weightless
from pliant.create import ModelSource, blueprint, identify, usual_image_size
from pliant.readers import timm, torchvision

FAMILIES = [
    "torchvision:wide_resnet50_2",
    "torchvision:mobilenet_v2",
    "torchvision:mobilenet_v3_small",
    "torchvision:efficientnet_v2_s",
    "torchvision:regnet_y_400mf",
    "torchvision:convnext_tiny",
    "torchvision:vit_b_32",
    "torchvision:swin_v2_t",
    "torchvision:maxvit_t",
    "timm:resnet26d",
    "timm:resnetv2_50",
    "timm:regnetx_002",
    "timm:efficientnet_b0",
    "timm:mobilenetv3_small_100",
    "timm:convnext_atto",
    "timm:caformer_s18",
    "timm:swin_tiny_patch4_window7_224",
    "timm:swinv2_tiny_window8_256",
    "timm:maxvit_tiny_tf_224",
    "timm:vit_small_patch14_reg4_dinov2",
    "timm:deit_tiny_distilled_patch16_224",
    "timm:beit_base_patch16_224",
    "timm:eva02_tiny_patch14_224",
    "timm:mixer_s16_224",
]


def without_memory(source: ModelSource) -> torch.nn.Module:
    model = blueprint(source)
    assert model is not None
    return model


def test_there_is_a_case_for_every_family_that_is_read():
    classes = {base for name in FAMILIES for base in type(without_memory(ModelSource(name=name))).__mro__}
    assert set(torchvision.FAMILIES) | set(timm.FAMILIES) <= classes


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_found_again(name):
    source = ModelSource(name=name, num_classes=7)
    assert identify(without_memory(source)) == source


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("torchvision:vit_b_32", {"image_size": 64}),
        ("torchvision:maxvit_t", {"input_size": [448, 448]}),
        ("timm:vit_tiny_patch16_224", {"img_size": [64, 64]}),
        ("timm:swinv2_tiny_window8_256", {"img_size": [128, 128]}),
        ("timm:swin_tiny_patch4_window7_224", {"img_size": [112, 112]}),
    ],
)
def test_the_image_size_is_found_too(name, options):
    source = ModelSource(name=name, num_classes=7, options=options)
    assert identify(without_memory(source)) == source


def test_candidates_that_cannot_be_made_for_images_of_this_size_are_none():
    # vit_h_14 cannot: 32 pixels are not divided by its patches of 14.
    model = without_memory(ModelSource(name="torchvision:vit_b_32", options={"image_size": 32}))
    model.heads.append(torch.nn.Identity())
    assert identify(model) is None


def test_equal_descriptions_of_other_tensors_are_not_the_same_model():
    model = without_memory(ModelSource(name="torchvision:vit_b_32"))
    model.class_token = torch.nn.Parameter(torch.zeros(1, 2, 768, device="meta"))
    assert identify(model) is None


def test_what_is_built_without_memory_leaves_the_rest_alone():
    before = torch.random.get_rng_state()
    with weightless():
        layer = torch.nn.Linear(2, 2)
        layer.register_parameter("scale", torch.nn.Parameter(torch.randn(2)))
    assert all(parameter.is_meta for parameter in layer.parameters())
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.nn.Linear(2, 2).weight.is_meta


def test_other_threads_go_on_with_memory():
    built: list[torch.nn.Linear] = []
    with weightless():
        thread = threading.Thread(target=lambda: built.append(torch.nn.Linear(2, 2)))
        thread.start()
        thread.join()
    assert not built[0].weight.is_meta


def test_a_network_of_transformers_is_found_by_its_config():
    pytest.importorskip("transformers")
    source = ModelSource(name="transformers:gpt2", options={"n_layer": 2, "n_embd": 32, "n_head": 2, "vocab_size": 50})
    model = source.create()
    found = identify(model)
    assert found is not None and found.name == "transformers:gpt2"
    assert identify(found.create()) == found
    assert repr(found.create()) == repr(model)


@pytest.mark.parametrize(
    ("source", "size"),
    [
        (ModelSource(name="torchvision:vit_b_32", options={"image_size": 64}), 64),
        (ModelSource(name="torchvision:maxvit_t", options={"input_size": [448, 448]}), 448),
        (ModelSource(name="timm:vit_tiny_patch16_224", options={"img_size": 96}), 96),
        (ModelSource(name="timm:swinv2_tiny_window8_256"), 256),
        (ModelSource(name="timm:efficientnet_b0"), 224),
        (ModelSource(name="torchvision:resnet18"), 224),
        (ModelSource(name="pliant:resnet20"), 32),
        (ModelSource(name="transformers:gpt2", options={"n_layer": 1}), 128),
        (ModelSource(name="transformers:swin", options={"image_size": 64}), 64),
    ],
)
def test_the_usual_image_size(source, size):
    assert usual_image_size(without_memory(source)) == size


def test_nobody_knows_the_image_size_of_a_stranger():
    assert usual_image_size(torch.nn.Linear(1, 1)) is None
