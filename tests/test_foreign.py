"""Checkpoint files of other people load exactly, or are refused by the names of what does not fit.

The files are made here, of random weights: from an adapted network, by a translation to the authors' names that
is written independently of the one in the library.
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.ops import StochasticDepth

import pliant
from pliant.checkpoint import CheckpointError
from pliant.create import ModelSource
from pliant.foreign import recognise

CLASSES = 5
# Architecture, options for small images, the released code's config, and pixels of a side.
ARCHITECTURES = {
    "resnet50": ({}, pliant.Depth(mandatory=(2, 2, 3, 2)), 32),
    "mobilenet_v2": ({}, pliant.Depth(mandatory=(1, 2, 2, 2, 2)), 32),
    "swin_t": ({}, pliant.Depth(mandatory=(1, 1, 3, 1)), 32),
    "vit_b_16": ({"image_size": 32}, pliant.Depth(groups=4, mandatory=(2, 2, 2, 2)), 32),
}
SECOND_SETS = {"resnet50": 135, "mobilenet_v2": 170, "swin_t": 2 * (2 * 6 + 3), "vit_b_16": 32}


def adapted(name: str) -> nn.Module:
    """An adapted network of which no two tensors are alike."""
    options, config, _ = ARCHITECTURES[name]
    torch.manual_seed(0)
    model = ModelSource(name=f"torchvision:{name}", num_classes=CLASSES, options=options).create()
    model = pliant.adapt_(model, config)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key.endswith("num_batches_tracked"):
                tensor.fill_(7)
            elif not tensor.is_floating_point():
                continue
            elif (
                key == "heads.head.weight"
                or "norm" in key
                or "bn" in key
                or ".ln" in key
                or tensor.dim() == 1
                or "class_token" in key
            ):
                tensor.add_(torch.rand_like(tensor) * 0.2)
    return model.eval()


def authors_file(model: nn.Module, name: str) -> dict[str, Tensor]:
    """The tensors of an adapted network by the authors' names."""
    own = model.state_dict()
    if name == "mobilenet_v2":
        own = {as_in_mobilenet(key): tensor for key, tensor in own.items()}
    elif name == "swin_t":
        own = {as_in_swin(key): tensor for key, tensor in own.items()}
    return {re.sub(r"\.skip(?=\.\w+$)", "_skip", key): tensor.clone() for key, tensor in own.items()}


def as_in_swin(key: str) -> str:
    if not key.startswith("features."):
        return key
    _, number, rest = key.split(".", 2)
    return f"pre.{rest}" if number == "0" else f"features.{int(number) - 1}.{rest}"


def as_in_mobilenet(key: str) -> str:
    if not key.startswith("features."):
        return key
    _, number, *rest = key.split(".")
    # Stem, then stages of 1, 2, 3, 4, 3, 3 and 1 blocks, then the last convolution.
    places = ["0"]
    for stage, blocks in enumerate([1, 2, 3, 4, 3, 3, 1], start=1):
        places += [f"{stage}.{block}" for block in range(blocks)] if blocks > 1 else [f"{stage}"]
    place = f"features.{[*places, '8'][int(number)]}"
    if rest[0] != "conv":
        layer, tensor = place, rest
    elif rest[2] in ("0", "1"):
        layer, tensor = f"{place}.conv.{rest[1]}", rest[2:]
    else:  # the last convolution of a block and its norm stand beside each other
        last = 1 if number == "1" else 2
        layer, tensor = f"{place}.conv.{last}", [str(int(rest[1]) - last), *rest[2:]]
    return ".".join([layer, "conv_layer" if tensor[0] == "0" else "norm", *tensor[1:]])


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow) if "vit" in name else name for name in ARCHITECTURES],
)
def case(request, tmp_path_factory):
    name = request.param
    model = adapted(name)
    path = tmp_path_factory.mktemp(name) / "checkpoint.pth"
    tensors = authors_file(model, name)
    torch.save(tensors, path)
    return name, model, tensors, path


@torch.no_grad()
def test_the_authors_files_load_as_adapted_networks(case):
    name, model, tensors, path = case
    assert sum("_skip." in key for key in tensors) == SECOND_SETS[name]
    loaded = pliant.load(path)
    assert loaded.space == model.space and not loaded.training
    pixels = ARCHITECTURES[name][2]
    images = torch.rand(2, 3, pixels, pixels)
    outputs = []
    for subnet in ("largest", "smallest"):
        outputs.append(loaded(images, subnet=subnet))
        assert torch.equal(outputs[-1], model(images, subnet=subnet))
    assert not torch.equal(*outputs)
    assert all(torch.equal(tensor, loaded.state_dict()[key]) for key, tensor in model.state_dict().items())


def rates(model: nn.Module) -> list[float]:
    return [module.p for module in model.modules() if isinstance(module, StochasticDepth)]


def test_the_authors_swin_trains_with_their_rate_of_stochastic_depth_and_keeps_it_in_a_saved_folder(tmp_path):
    torch.save(authors_file(adapted("swin_t"), "swin_t"), tmp_path / "file.pth")
    theirs = rates(SwinTransformer([4, 4], 96, [2, 2, 6, 2], [3, 6, 12, 24], [7, 7], stochastic_depth_prob=0.1))
    model = pliant.load(tmp_path / "file.pth")
    assert rates(model) == theirs and theirs[-1] == 0.1
    assert rates(pliant.load(pliant.save(model, tmp_path / "saved"))) == theirs
    # Who names another rate gets it.
    usual = ModelSource(name="torchvision:swin_t", options={"stochastic_depth_prob": 0.2})
    assert rates(pliant.load(tmp_path / "file.pth", model=usual))[-1] == 0.2


@pytest.mark.slow
def test_every_published_architecture_is_recognised(tmp_path):
    """One number a tensor: ResNet-101 and ViT-B are large."""
    from pliant.create import blueprint

    for name, config in {"resnet101": pliant.Depth(), "vit_b_16": pliant.Depth(groups=4)}.items():
        model = blueprint(ModelSource(name=f"torchvision:{name}"))
        assert model is not None
        shapes = {key: tensor.shape for key, tensor in pliant.adapt_(model, config).state_dict().items()}
        file = {
            re.sub(r"\.skip(?=\.\w+$)", "_skip", key): torch.ones(()).expand(shape) for key, shape in shapes.items()
        }
        torch.save(file, tmp_path / "file.pth")
        found = recognise(tmp_path / "file.pth")
        assert (found.origin, found.source.name) == ("ADN authors", f"torchvision:{name}")
        assert {key: tensor.shape for key, tensor in found.tensors.items()} == shapes


@pytest.fixture(scope="module")
def mobilenet() -> dict[str, Tensor]:
    return authors_file(adapted("mobilenet_v2"), "mobilenet_v2")


def saved(tensors: object, path: Path) -> Path:
    torch.save(tensors, path)
    return path


def training_script(model: object, averaged: object) -> dict[str, object]:
    """What torchvision's training script, and so the authors', puts into a file."""
    return {
        "model": model,
        "model_ema": averaged,
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]},
        "lr_scheduler": {"milestones": Counter([60, 100]), "last_epoch": 149},
        "epoch": 149,
        "args": argparse.Namespace(model="mobilenet_v2", lr=0.1),
    }


@pytest.mark.parametrize(
    ("ema", "entry", "first"), [(None, "model_ema", 2.0), (True, "model_ema", 2.0), (False, "model", 0.0)]
)
def test_averaged_weights_are_preferred(mobilenet, tmp_path, ema, entry, first):
    averaged = {"n_averaged": torch.tensor(9)}
    averaged |= {f"module.{key}": torch.full_like(tensor, 2) for key, tensor in mobilenet.items()}
    plain = {f"module.{key}": torch.zeros_like(tensor) for key, tensor in mobilenet.items()}
    path = saved(training_script(plain, averaged), tmp_path / "model_299.pth")
    assert recognise(path, ema=ema).entry == entry
    assert pliant.load(path, ema=ema).classifier[1].bias[0] == first


def test_weights_that_are_not_there_are_not_replaced_by_others(mobilenet, tmp_path):
    path = saved(mobilenet, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="holds no averaged weights"):
        pliant.load(path, ema=True)
    path = saved({"model_ema": mobilenet}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="holds averaged weights alone"):
        pliant.load(path, ema=False)


def without(key: str):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if name not in key.split()}


CHANGES = {
    "a second set": (
        without("features.3.1.conv.0.norm_skip.bias features.0.norm_skip.weight"),
        r"nearest is torchvision:mobilenet_v2, where features\.0\.norm_skip\.weight is missing; "
        r"features\.3\.1\.conv\.0\.norm_skip\.bias is missing; known are",
    ),
    "a tensor too many": (
        lambda tensors: tensors | {"features.9.bias": torch.zeros(3)},
        r"mobilenet_v2, where features\.9\.bias is unknown;",
    ),
    "a count too many": (
        lambda tensors: tensors | {"features.3.2.conv.0.norm_skip.num_batches_tracked": torch.tensor(1)},
        r"features\.3\.2\.conv\.0\.norm_skip\.num_batches_tracked is unknown;",
    ),
    "another width": (
        lambda tensors: tensors | {"features.8.norm.bias": torch.zeros(640)},
        r"features\.8\.norm\.bias is \[640\], expected \[1280\]",
    ),
    "many": (
        lambda tensors: {f"backbone.{key}": tensor for key, tensor in tensors.items()},
        r"where \S+ is missing; \S+ is missing; \S+ is missing and \d+ more",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_fit_is_named(mobilenet, tmp_path, change):
    alter, message = CHANGES[change]
    path = saved(alter(mobilenet), tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=message) as error:
        pliant.load(path)
    assert "\n" not in str(error.value)


def test_counts_of_batches_may_be_missing(mobilenet, tmp_path):
    kept = {name: tensor for name, tensor in mobilenet.items() if "num_batches" not in name}
    model = pliant.load(saved(kept, tmp_path / "old.pth"))
    assert model.features[0][1].skip.num_batches_tracked == 0
    assert torch.equal(model.features[0][1].skip.weight, mobilenet["features.0.norm_skip.weight"])


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("torchvision:resnet18", "weights.pth"),
        ("torchvision:efficientnet_b0", "weights.pt"),
        ("torchvision:regnet_x_1_6gf", "weights.safetensors"),
        ("timm:resnet26d", "weights.safetensors"),
        ("timm:resnet26d", "resnet26d-69e92c46.pth"),
        ("timm:convnext_atto", "weights.bin"),
        ("timm:mobilenetv2_100", "mobilenetv2_100_ra-b33bc2c4.pth"),
        ("pliant:resnet20", "weights.pth"),
    ],
)
def test_files_of_the_libraries_load_as_their_networks(tmp_path, name, file):
    torch.manual_seed(0)
    model = pliant.create_model(name, num_classes=CLASSES).eval()
    path = tmp_path / file
    if path.suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    found = recognise(path)
    assert found.source == ModelSource(name=name, num_classes=CLASSES)
    assert (found.origin, found.configs) == (name.partition(":")[0], ())
    loaded = pliant.load(path)
    assert type(loaded) is type(model)
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(loaded(images), model(images))
    assert len(pliant.adapt_(loaded, pliant.Depth()).subnets) > 1


@pytest.mark.parametrize(
    "source",
    [
        ModelSource(name="torchvision:vit_b_32", num_classes=CLASSES, options={"image_size": 64}),
        ModelSource(name="timm:vit_tiny_patch16_224", num_classes=CLASSES, options={"img_size": [64, 64]}),
    ],
)
def test_the_image_size_is_taken_from_the_position_embeddings(tmp_path, source):
    path = saved(source.create().state_dict(), tmp_path / "file.pth")
    assert recognise(path).source == source
    assert recognise(path, model=source.name).source == source


def test_old_names_of_a_library_are_still_read(tmp_path):
    new = ModelSource(name="torchvision:vit_b_32", options={"image_size": 32}).create().state_dict()
    old = {
        key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): value for key, value in new.items()
    }
    assert set(old) != set(new)
    assert set(recognise(saved(old, tmp_path / "file.pth")).tensors) == set(new)


def test_networks_that_differ_where_no_tensor_does_are_asked_for(tmp_path):
    """TensorFlow's EfficientNet pads differently and has another epsilon, and the same tensors."""
    tensors = pliant.create_model("timm:tf_efficientnet_b0", num_classes=CLASSES).state_dict()
    path = saved(tensors, tmp_path / "file.pth")
    with pytest.raises(
        CheckpointError, match=r"several .*timm:efficientnet_b0, .*timm:tf_efficientnet_b0.*model="
    ) as error:
        pliant.load(path)
    assert "\n" not in str(error.value)
    assert recognise(path, model="timm:tf_efficientnet_b0").source.name == "timm:tf_efficientnet_b0"
    named = saved({"arch": "tf_efficientnet_b0", "state_dict": tensors}, path)
    assert recognise(named).source.name == "timm:tf_efficientnet_b0"
    (tmp_path / "config.json").write_text('{"architecture": "efficientnet_b0"}')
    assert recognise(saved(tensors, path)).source.name == "timm:efficientnet_b0"


def test_the_name_of_the_file_is_a_hint_and_no_more(tmp_path):
    tensors = pliant.create_model("torchvision:resnet18", num_classes=CLASSES).state_dict()
    assert recognise(saved(tensors, tmp_path / "resnet50.pth")).source.name == "torchvision:resnet18"
    assert recognise(saved(tensors, tmp_path / "timm_resnet18.pth")).source.name == "torchvision:resnet18"


def test_another_network_than_the_one_named_is_refused(mobilenet, tmp_path):
    path = saved(pliant.create_model("torchvision:resnet18").state_dict(), tmp_path / "file.pth")
    with pytest.raises(
        CheckpointError, match=r"does not fit torchvision:resnet34: layer1\.2\.conv1\.weight is missing;"
    ):
        pliant.load(path, model="torchvision:resnet34")
    path = saved(mobilenet, path)
    with pytest.raises(CheckpointError, match="the nearest is torchvision:resnet50, where"):
        pliant.load(path, model="torchvision:resnet50")
    with pytest.raises(
        CheckpointError, match="they published no torchvision:resnet18; known are torchvision:resnet50,"
    ):
        pliant.load(path, model="torchvision:resnet18")


def test_weights_of_no_known_network_are_refused_with_their_names(tmp_path):
    path = saved(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).state_dict(), tmp_path / "mine.pth")
    with pytest.raises(CheckpointError, match=r"names begin with 0\.weight, 0\.bias, 1\.weight; say which .*model="):
        pliant.load(path)
    tensors = pliant.create_model("torchvision:resnet18").state_dict() | {"extra.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"nearest is torchvision:resnet18, where extra\.weight is unknown; say"):
        pliant.load(saved(tensors, path))


class Trap:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __reduce__(self):
        return (os.mkdir, (str(self.directory),))


@pytest.mark.parametrize("how", ["torch.save", "inside", "pickle", "named safetensors"])
def test_a_pickle_is_refused_and_never_executed(mobilenet, tmp_path, how):
    path = tmp_path / ("file.safetensors" if "safe" in how else "file.pth")
    trap = Trap(tmp_path / "executed")
    if how == "torch.save":
        torch.save(trap, path)
    elif how == "inside":
        torch.save(mobilenet | {"features.0.norm.bias": trap}, path)
    else:
        path.write_bytes(pickle.dumps(trap))
    with pytest.raises(CheckpointError, match=r"refused|corrupt") as error:
        pliant.load(path)
    assert not (tmp_path / "executed").exists()
    assert "\n" not in str(error.value) and "weights_only=False" not in str(error.value)


@pytest.mark.parametrize("keep", [0, 5, 1000, 100_000, -1])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_refused(tmp_path, mobilenet, suffix, keep):
    path = tmp_path / f"file{suffix}"
    save_file(mobilenet, path) if suffix == ".safetensors" else torch.save(mobilenet, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"file\.\w+ is truncated, corrupt or"):
        pliant.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(2), "holds no weights: it is a Tensor, expected tensors by name"),
        ({}, "holds no weights: it is empty"),
        ({"epoch": 3, "best": 0.5}, "has none as model_ema, .*: epoch is a int; best is a float, expected tensors"),
        ({"model": {"weight": [1, 2]}}, "weight is a list, expected tensors"),
    ],
)
def test_a_file_without_weights_is_refused(tmp_path, content, message):
    with pytest.raises(CheckpointError, match=message):
        pliant.load(saved(content, tmp_path / "file.pth"))


def test_a_part_of_a_saved_network_is_not_taken_for_a_file_of_others(tmp_path):
    folder = pliant.save(pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Depth()), tmp_path / "run")
    with pytest.raises(CheckpointError, match="load the folder"):
        pliant.load(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="model= is for checkpoint files of other people"):
        pliant.load(folder, model="pliant:resnet20")
