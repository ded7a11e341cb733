"""Contract 3. A saved network is whole or refused; nothing in it is ever executed."""

import errno
import json
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

import pliant
from pliant import checkpoint
from pliant.checkpoint import CheckpointError
from pliant.create import ModelSource


@pytest.fixture
def model():
    torch.manual_seed(0)
    return pliant.adapt_(
        pliant.create_model("pliant:resnet20", num_classes=4), pliant.Depth(mandatory=(2, 3, 2))
    ).eval()


@pytest.fixture
def saved(model, tmp_path):
    return pliant.save(model, tmp_path / "run", info={"class_names": ["a", "b", "c", "d"]})


def test_the_card_says_what_the_network_is(saved):
    card = checkpoint.read_info(saved)
    assert card["model"] == {"version": 1, "name": "pliant:resnet20", "num_classes": 4, "options": {}}
    assert card["adapt"]["depth"]["mandatory"] == [2, 3, 2]
    assert card["info"]["class_names"] == ["a", "b", "c", "d"]
    assert set(card["versions"]) == {"pliant", "torch"}
    assert sorted(path.name for path in saved.iterdir()) == ["model.safetensors", "pliant.json"]
    assert len({path.stat().st_mode for path in saved.iterdir()}) == 1


@torch.no_grad()
def test_one_sub_network_on_its_own_is_saved_as_a_plain_network(model, tmp_path):
    network = pliant.extract(model, "TFT")
    pliant.save(
        network,
        tmp_path,
        only="TFT",
        adapted_with=model.configs,
        source=ModelSource(name="pliant:resnet20", num_classes=4),
    )
    loaded = pliant.load(tmp_path)
    assert type(loaded).__name__ == "CifarResNet"
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded(images), model(images, subnet="TFT"))


@torch.no_grad()
def test_the_size_of_the_example_is_kept_where_nothing_else_says_it(tmp_path):
    source = ModelSource(name="timm:mixer_s32_224", num_classes=3, options={"img_size": 64})
    images = torch.rand(2, 3, 64, 64)
    model = pliant.adapt_(source.create(), pliant.Width(choices=(0.5, 1.0)), example=images).eval()
    loaded = pliant.load(pliant.save(model, tmp_path / "once", source=source))
    again = pliant.load(pliant.save(loaded, tmp_path / "twice", source=source))
    assert torch.equal(again(images, subnet="smallest"), model(images, subnet="smallest"))


@torch.no_grad()
def test_a_network_with_options_of_its_library_needs_its_source(tmp_path):
    source = ModelSource(name="timm:resnet18", num_classes=3, options={"output_stride": 16})
    model = pliant.adapt_(source.create(), pliant.Depth()).eval()
    with pytest.raises(ValueError, match="pass source=ModelSource"):
        pliant.save(model, tmp_path)
    pliant.save(model, tmp_path, source=source)
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(pliant.load(tmp_path)(images), model(images))


def test_a_pickle_is_refused_and_never_executed(saved, tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    (saved / "model.safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(CheckpointError, match="no safetensors file"):
        pliant.load(saved)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_a_truncated_network_is_refused(saved, keep):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated, corrupt"):
        pliant.load(saved)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("{", "truncated or corrupt"),
        ("[]", "names no format"),
        ('{"format": 99}', "format 99, from a newer version; this pliant knows up to 1"),
        ('{"format": 1}', "corrupt: no 'model'"),
    ],
)
def test_a_card_that_is_none_is_refused(saved, card, message):
    (saved / "pliant.json").write_text(card)
    with pytest.raises(CheckpointError, match=message):
        pliant.load(saved)


def test_a_config_from_a_newer_version_is_refused(saved):
    path = saved / "pliant.json"
    card = json.loads(path.read_text())
    card["adapt"]["depth"]["version"] = 7
    path.write_text(json.dumps(card))
    with pytest.raises(ValueError, match="Depth: version 7 is newer"):
        pliant.load(saved)


def test_another_number_of_classes_is_refused_with_the_keys(saved):
    path = saved / "pliant.json"
    card = json.loads(path.read_text())
    card["model"]["num_classes"] = 7
    path.write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match=r"fc\.weight is \[4, 64\], expected \[7, 64\]"):
        pliant.load(saved)


def test_what_is_not_there_is_said(tmp_path, saved):
    with pytest.raises(CheckpointError, match="is no folder"):
        pliant.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"holds no pliant\.json"):
        pliant.load(tmp_path)
    (saved / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        pliant.load(saved)


@pytest.mark.parametrize("fails_at", ["weights", "card", "sync"])
def test_a_full_disk_leaves_the_previous_network_whole(model, saved, monkeypatch, fails_at):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with torch.no_grad():
        model.fc.weight.zero_()
    if fails_at == "weights":
        monkeypatch.setattr(checkpoint, "save_file", full)
    elif fails_at == "card":
        monkeypatch.setattr("pathlib.Path.write_text", full)
    else:
        monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device; what was there before is unchanged"):
        pliant.save(model, saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


@pytest.fixture
def tied():
    """A decoder whose head is its embedding, with two stages of two blocks."""
    pytest.importorskip("transformers")
    options = {"n_layer": 4, "n_embd": 32, "n_head": 2, "vocab_size": 50, "n_positions": 16}
    torch.manual_seed(0)
    model = ModelSource(name="transformers:gpt2", options=options).create()
    return pliant.adapt_(model, pliant.Depth(groups=2)).eval()


@torch.no_grad()
def test_tied_weights_are_stored_once_and_stay_tied(tied, tmp_path):
    pliant.save(tied, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert set(tied.state_dict()) - set(stored) == {"lm_head.weight"}
    loaded = pliant.load(tmp_path)
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    tokens = torch.arange(8)[None]
    for subnet in ("TT", "FF"):
        assert torch.equal(loaded(tokens, subnet=subnet).logits, tied(tokens, subnet=subnet).logits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors | {"lm_head.weight": torch.zeros(50, 32)}, r"lm_head\.weight is unknown"),
        (lambda tensors: tensors | {"transformer.extra": torch.zeros(1)}, r"transformer\.extra is unknown"),
        (lambda tensors: tensors | {"transformer.wte.weight": None}, r"transformer\.wte\.weight is missing"),
    ],
)
def test_no_other_name_than_a_tied_one_may_be_missing(tied, tmp_path, change, message):
    path = pliant.save(tied, tmp_path) / "model.safetensors"
    changed = change(load_file(path))
    save_file({name: tensor for name, tensor in changed.items() if tensor is not None}, path)
    with pytest.raises(CheckpointError, match=message):
        pliant.load(tmp_path)


def test_weights_that_are_parts_of_one_tensor_are_stored_whole(model, tmp_path):
    numbers = torch.randn(266)
    with torch.no_grad():
        model.fc.weight.data = numbers[:256].view(4, 64)
        model.layer1[0].bn1.bias.data = numbers[250:]
    loaded = pliant.load(pliant.save(model, tmp_path))
    assert torch.equal(loaded.fc.weight, model.fc.weight)
    assert torch.equal(loaded.layer1[0].bn1.bias, model.layer1[0].bn1.bias)


def test_a_second_norm_set_that_is_missing_is_not_made_up(saved):
    path = saved / "model.safetensors"
    tensors = load_file(path)
    del tensors["layer1.0.bn1.skip.weight"]
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"layer1\.0\.bn1\.skip\.weight is missing"):
        pliant.load(saved)
