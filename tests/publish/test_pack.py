"""The folder for the Hub: what it holds, what its README says, and what it leaves out."""

from __future__ import annotations

import json
import re

import pytest
import torch
from huggingface_hub import ModelCard

import pliant
from pliant import checkpoint
from pliant.checkpoint import CheckpointError
from pliant.create import ModelSource

from .conftest import write_table


@torch.no_grad()
def test_a_packed_folder_is_loaded_like_a_run(model, measured, tmp_path) -> None:
    packed = pliant.pack(measured, "me/net", tmp_path / "packed")
    assert sorted(path.name for path in packed.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "table.json",
    ]
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(pliant.load(packed)(images, subnet="TFT"), model(images, subnet="TFT"))
    assert pliant.Table.load(packed / "table.json").pick(gmacs=0.03)["subnet"] == "TTT"
    with pytest.raises(CheckpointError, match="load the folder"):
        pliant.load(packed / "model.safetensors")


def test_the_card_is_that_of_the_run_without_places_of_one_machine(measured, tmp_path) -> None:
    packed = pliant.pack(measured, "me/net", tmp_path / "packed")
    config, card = json.loads((packed / "config.json").read_text()), checkpoint.read_info(measured)
    assert config.pop("library_name") == "pliant"
    del card["info"]["source"]
    assert config == card
    assert not any(b"/path/of/mine" in path.read_bytes() for path in packed.iterdir())


def test_the_readme_says_what_was_measured(measured, tmp_path) -> None:
    card = ModelCard.load(pliant.pack(measured, "me/net", tmp_path / "packed") / "README.md")
    assert card.data.library_name == "pliant"
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.datasets == ["uoft-cs/cifar10"]
    assert "adaptive-depth" in card.data.tags
    assert card.data.get("license") is None
    assert card.data.model_name == "net"
    results = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert results == {"top-1 accuracy of TTT in %": 81.26, "top-1 accuracy of FFF in %": 84.5}
    assert "8 sub-networks in one set of weights, made from `pliant:resnet20`" in card.text
    assert "| sub-network | GMACs | top-1 % | latency ms |" in card.text
    assert "| TTT | 0.026 | 81.26 | 2.50 |" in card.text
    assert "| FTT | 0.031 |  | 3.00 |" in card.text
    assert "on cpu, a processor, 1 thread" in card.text


def test_the_python_in_the_readme_runs(measured, tmp_path, monkeypatch) -> None:
    packed = pliant.pack(measured, "me/net", tmp_path / "packed")
    code = re.search(r"```python\n(.*?)```", (packed / "README.md").read_text(), re.DOTALL)
    assert code is not None
    assert 'pliant.load("hf:me/net")' in code[1]
    names: dict[str, object] = {}
    exec(code[1].replace("hf:me/net", str(packed)).replace("model(torch", "y = model(torch"), names)
    assert isinstance(names["y"], torch.Tensor)
    assert names["y"].shape == (1, 10)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_survives_saving_packing_and_extracting_and_is_measured_and_exported(
    model, tmp_path, dtype
) -> None:
    images = torch.rand(2, 3, 32, 32, dtype=dtype)
    model.to(dtype)
    run = pliant.save(model, tmp_path / "run", info={"image_size": 32})
    packed = pliant.pack(run, "me/net", tmp_path / "packed")
    for folder in (run, packed):
        loaded = pliant.load(folder)
        assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
        small = pliant.extract(loaded, "TTT")
        assert small(images).dtype == dtype
        assert torch.equal(small(images), model(images, subnet="TTT"))
    table = pliant.measure(loaded, image_size=32, subnets=["TTT"], rounds=1, warmup=0)
    assert table.info["dtype"] == str(dtype).removeprefix("torch.")
    assert pliant.export(loaded, tmp_path / "net.pt2", subnet="TTT").difference < 1e-4
    text = (packed / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None and "dtype=torch.float32)` gives them in float32" in text
    names: dict[str, object] = {}
    exec(code[1].replace("hf:me/net", str(packed)).replace("model(torch", "y = model(torch"), names)
    assert isinstance(names["y"], torch.Tensor) and names["y"].dtype == dtype


def test_what_was_not_measured_is_absent(run, tmp_path) -> None:
    card = ModelCard.load(pliant.pack(run, "me/net", tmp_path / "packed") / "README.md")
    assert not (tmp_path / "packed" / "table.json").exists()
    assert card.data.eval_results is None
    assert card.data.get("metrics") is None
    assert "|" not in card.text
    assert "Latency" not in card.text


def test_accuracies_of_statistics_that_the_weights_do_not_have_stay_behind(model, run, tmp_path) -> None:
    write_table(model, run, recalibrated_on=640)
    rows = json.loads((run / "table.json").read_text())
    rows["rows"][1]["acc1"] = 83.0
    (run / "table.json").write_text(json.dumps(rows))
    packed = pliant.pack(run, "me/net", tmp_path / "packed")
    text = (packed / "README.md").read_text()
    assert "83.0" not in text
    assert "| FFF | 0.041 | 84.50 |" in text
    assert "--recalibrate 640" in text
    assert "acc1" not in pliant.Table.load(packed / "table.json").rows[1]


def test_a_table_of_other_weights_is_refused(model, measured, tmp_path) -> None:
    with torch.no_grad():
        model.fc.weight.zero_()
    pliant.save(model, measured)
    with pytest.raises(ValueError, match=r"table\.json is not of the network in"):
        pliant.pack(measured, "me/net", tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_a_folder_with_something_in_it_is_left_alone(run, tmp_path) -> None:
    with pytest.raises(ValueError, match="run is there and has something in it"):
        pliant.pack(run, "me/net", run)
    with pytest.raises(CheckpointError, match="nowhere is no folder"):
        pliant.pack(tmp_path / "nowhere", "me/net", tmp_path / "packed")


def test_one_sub_network_is_packed_as_a_plain_network(model, tmp_path) -> None:
    source = ModelSource(name="pliant:resnet20", num_classes=10)
    small = pliant.extract(model, "TFT")
    pliant.save(small, tmp_path / "run", only="TFT", adapted_with=model.configs, source=source)
    packed = pliant.pack(tmp_path / "run", "me/net", tmp_path / "packed")
    text = (packed / "README.md").read_text()
    assert "the sub-network `TFT` of `pliant:resnet20`" in text
    assert "subnet=" not in text
    assert type(pliant.load(packed)).__name__ == "CifarResNet"


OWN = """
from torch import nn

def make():
    import pliant
    return pliant.create_model("pliant:resnet20", num_classes=3)
"""


def test_the_readme_says_that_there_is_a_gate(tmp_path) -> None:
    network = pliant.create_model("pliant:resnet20", num_classes=3, shortcut="projection")
    pliant.adapt_(network, pliant.Width(choices=(0.5, 0.75, 1.0), gate=pliant.Gate()))
    pliant.save(network, tmp_path / "run")
    text = (pliant.pack(tmp_path / "run", "me/net", tmp_path / "packed") / "README.md").read_text()
    assert "or input by input by its gate" in text
    assert 'pliant.predict(model, x, policy="gate")' in text


def test_a_network_of_ones_own_is_named_without_its_folder(tmp_path, monkeypatch) -> None:
    file = tmp_path / "secret" / "own.py"
    file.parent.mkdir()
    file.write_text(OWN)
    name = f"{file}:make"
    model = pliant.adapt_(pliant.create_model(name), pliant.Depth())
    run = pliant.save(model, tmp_path / "run", source=ModelSource(name=name))
    packed = pliant.pack(run, "me/net", tmp_path / "packed", model=name)
    assert not any(b"secret" in path.read_bytes() for path in packed.iterdir())
    assert 'pliant.load("hf:me/net", model="own.py:make")' in (packed / "README.md").read_text()
    with pytest.raises(CheckpointError, match=r"run only if you name it, with model='own\.py:make'"):
        pliant.load(packed)
    monkeypatch.chdir(file.parent)
    assert len(pliant.load(packed, model="own.py:make").subnets) == 8


def test_a_folder_of_another_library_is_refused(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    with pytest.raises(CheckpointError, match=r"no library_name 'pliant'; .* has no pliant\.json"):
        pliant.load(tmp_path)


def test_networks_of_transformers_are_packed_as_all_others(tmp_path) -> None:
    pytest.importorskip("transformers")
    options = {"n_layer": 4, "n_embd": 32, "n_head": 2, "vocab_size": 50, "n_positions": 128}
    model = pliant.adapt_(ModelSource(name="transformers:gpt2", options=options).create(), pliant.Depth(groups=2))
    packed = pliant.pack(pliant.save(model, tmp_path / "run"), "me/net", tmp_path / "packed")
    text = (packed / "README.md").read_text()
    assert 'model(torch.randint(50, (1, 128)), subnet="TT")' in text
    assert "image-classification" not in text
