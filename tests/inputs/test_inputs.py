"""What a model takes is like the example that it was adapted with, wherever inputs are made: no image is guessed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from torch import Tensor, nn

import pliant
from pliant.checkpoint import CheckpointError, read_info
from pliant.core.inputs import placed, run_on, tensors_of
from pliant.create import ModelSource
from pliant.measure.describe import describe
from pliant.runtime import load

FILE = Path(__file__).with_name("own_inputs.py")


def _module() -> Any:
    spec = importlib.util.spec_from_file_location("own_inputs", FILE)
    assert spec is not None and spec.loader is not None
    sys.modules["own_inputs"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OWN = _module()
KINDS = list(OWN.CASES)
SHOWN = {
    "table": "inputs 20",
    "tokens": "7 tokens",
    "signal": "inputs 2x40",
    "video": "inputs 3x4x6x6",
    "non-square": "3x6x9 images",
    "channels": "6 px images",
    "patches": "3x8x12 images",
    "tuple": "input_1 5, input_2 4",
    "dictionary": "ids 4, x 5",
}
QUICK: dict[str, Any] = {"rounds": 6, "warmup": 0, "energy": False}


def example_of(kind: str) -> Any:
    return OWN.CASES[kind][1]


def adapted(kind: str, *configs: Any) -> Any:
    return pliant.adapt_(OWN.make(kind), *(configs or (pliant.Depth(),)), example=example_of(kind)).eval()


def repeated(example: Any, times: int) -> Any:
    """A larger batch of the same inputs."""
    return torch.utils._pytree.tree_map_only(Tensor, lambda x: torch.cat([x] * times), example)


@pytest.mark.parametrize("kind", KINDS)
def test_what_describe_counts_is_there(kind):
    table = describe(adapted(kind), subnets=["largest"])
    assert table.rows[0]["gmacs"] == OWN.GMACS[kind]
    assert table.info["inputs"] == SHOWN[kind]
    assert table.info.get("image_size") == {"tokens": 7, "channels": 6}.get(kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("through", ["extracted", "switched"])
def test_measure_runs_such_inputs(kind, through):
    model = adapted(kind)
    seen = []
    model.get_submodule("head").register_forward_hook(lambda module, args, output: seen.append(output.shape[0]))
    table = pliant.measure(model, batch_size=3, through=through, subnets=["smallest", "largest"], **QUICK)
    assert table.rows[-1]["gmacs"] == OWN.GMACS[kind] and table.info["inputs"] == SHOWN[kind]
    assert all(row["latency_ms"] > 0 and row["operators"] and row["peak_memory_mb"] for row in table.rows)
    assert set(seen) == {1, 3}


@pytest.mark.parametrize("kind", ["table", "dictionary", "non-square"])
@pytest.mark.parametrize("config", [pliant.Exits(), pliant.Width(choices=(0.5, 1.0))])
def test_every_axis_does(kind, config):
    table = pliant.measure(adapted(kind, config), latency=False, memory=False, energy=False)
    assert table.rows[-1]["gmacs"] == OWN.GMACS[kind] > table.rows[0]["gmacs"]


@pytest.mark.parametrize("kind", ["table", "signal", "video", "tuple", "dictionary"])
def test_an_image_size_is_refused_where_there_is_no_image(kind, tmp_path):
    model = adapted(kind)
    calls = [
        lambda: pliant.measure(model, image_size=20, **QUICK),
        lambda: describe(model, 20),
        lambda: pliant.export(model, tmp_path / "net.onnx", image_size=20),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"^image_size: got 20, expected none.*leave it out$"):
            call()
    assert not list(tmp_path.iterdir())


def test_an_image_size_takes_the_place_of_that_of_the_example():
    assert describe(adapted("channels"), 12).rows[-1]["gmacs"] > 3.9 * OWN.GMACS["channels"]
    assert describe(adapted("tokens"), 14).rows[-1]["gmacs"] > 1.9 * OWN.GMACS["tokens"]
    for size in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match=f"image_size: got {size}"):
            describe(adapted("channels"), size)


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_file_takes_such_inputs(kind, tmp_path):
    model, example = adapted(kind), example_of(kind)
    report = pliant.export(model, tmp_path / "net.onnx", subnet="smallest")
    assert report.difference <= report.tolerance and report.inputs == SHOWN[kind]
    file = load(tmp_path / "net.onnx")
    given = repeated(example, 3)
    expected = run_on(model, given, subnet="smallest").detach()
    arrays = [tensor.numpy() for tensor in tensors_of(given)]
    assert torch.allclose(torch.from_numpy(file(arrays)), expected, atol=1e-5)
    # One sees what it takes, and it refuses the rest.
    assert [one.shape for one in file.inputs] == [tuple(array.shape[1:]) for array in arrays]
    if len(arrays) > 1:
        assert set(file.example()) == {one.name for one in file.inputs}
        with pytest.raises(ValueError, match="inputs: got 1, expected 2"):
            file(arrays[0])
    else:
        assert file.example(2).shape == (2, *arrays[0].shape[1:])
    with pytest.raises(ValueError, match="expected"):
        file([array[..., :-1] for array in arrays])


@pytest.mark.parametrize("kind", ["table", "tuple", "dictionary"])
def test_every_kind_of_file_does(kind, tmp_path):
    model, example = adapted(kind), example_of(kind)
    pliant.export(model, tmp_path / "net.pt2")
    pliant.export(model, tmp_path / "switchable.onnx", switchable="fast")
    arrays = [tensor.numpy() for tensor in tensors_of(example)]
    for subnet in map(str, model.subnets):
        expected = run_on(model, example, subnet=subnet).detach()
        answer = load(tmp_path / "switchable.onnx")(arrays, subnet)
        assert torch.allclose(torch.from_numpy(answer), expected, atol=1e-5)
    assert torch.allclose(torch.from_numpy(load(tmp_path / "net.pt2")(arrays)), expected, atol=1e-5)
    table = pliant.measure_file(tmp_path / "net.pt2", memory=False, **QUICK)
    assert table.info["inputs"] == SHOWN[kind] and table.rows[0]["latency_ms"] > 0


def test_a_policy_becomes_a_file_of_several_inputs(tmp_path):
    model = adapted("dictionary", pliant.Exits())
    policy = pliant.ConfidencePolicy(subnets=("exit=1", "exit=2"), thresholds=(0.4, float("-inf")), num_classes=3)
    report = pliant.export(model, tmp_path / "net.onnx", policy=policy)
    assert report.inputs == SHOWN["dictionary"] and report.subnets == ("exit=1", "exit=2")


def test_an_input_of_a_name_with_a_meaning_is_refused(tmp_path):
    class Skips(OWN.Mixed):
        def forward(self, x: Tensor, skip: Tensor) -> Tensor:
            return super().forward(x, skip)

    x, ids = example_of("tuple")
    model: Any = pliant.adapt_(Skips().eval(), pliant.Depth(), example={"x": x, "skip": ids})
    with pytest.raises(ValueError, match=r"example: this .*Skips takes an input 'skip'"):
        pliant.export(model, tmp_path / "net.onnx")


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_remembers_its_example(kind, tmp_path, monkeypatch):
    (tmp_path / FILE.name).write_text(FILE.read_text())
    monkeypatch.chdir(tmp_path)
    model = adapted(kind)
    name = f"{FILE.name}:make"
    pliant.save(model, "run", source=ModelSource(name=name, options={"kind": kind}))
    assert read_info("run")["verified"] is True
    loaded: Any = pliant.load("run", model=name)
    table = pliant.measure(loaded, latency=False, memory=False, energy=False)
    assert table.rows[-1]["gmacs"] == OWN.GMACS[kind] and table.info["inputs"] == SHOWN[kind]
    pliant.export(loaded, "net.onnx")
    # Again, of a model that was itself loaded.
    pliant.save(loaded, "again", source=ModelSource(name=name, options={"kind": kind}))
    assert read_info("again")["example"] == read_info("run")["example"]


def test_a_card_with_a_damaged_example_is_refused(tmp_path):
    model = pliant.create_model("pliant:resnet20")
    pliant.save(pliant.adapt_(model, pliant.Depth(), example=torch.ones(1, 3, 8, 8)), tmp_path)
    card = json.loads((tmp_path / "pliant.json").read_text())
    (tmp_path / "pliant.json").write_text(json.dumps(card | {"example": {"shape": [1, 3, 8, 8], "dtype": "float33"}}))
    with pytest.raises(CheckpointError, match=r"pliant\.json is corrupt: not an example: .*float33"):
        pliant.load(tmp_path)


@pytest.mark.parametrize("kind", ["table", "dictionary"])
def test_a_plain_network_needs_its_example_again(kind, tmp_path):
    plain = pliant.extract(adapted(kind), "largest")
    with pytest.raises(ValueError, match=r"measure: image_size is needed.*example="):
        pliant.measure(plain, **QUICK)
    assert describe(plain, example=example_of(kind)).rows[0]["gmacs"] == OWN.GMACS[kind]
    assert pliant.measure(plain, example=example_of(kind), **QUICK).info["inputs"] == SHOWN[kind]
    assert pliant.export(plain, tmp_path / "net.onnx", example=example_of(kind)).inputs == SHOWN[kind]


def test_what_a_network_does_not_take_is_said_in_one_line(tmp_path):
    vit = timm.create_model("vit_tiny_patch16_224", img_size=(32, 64), embed_dim=48, depth=4, num_classes=3).eval()
    model = pliant.adapt_(vit, pliant.Depth())
    refusal = r"^image_size, example: this VisionTransformer does not take 64 px images.*example=, one input$"
    for call in (lambda: pliant.measure(model, image_size=64, **QUICK), lambda: describe(model, 64)):
        with pytest.raises(ValueError, match=refusal):
            call()
    with pytest.raises(ValueError, match=r"^image_size, example: VisionTransformer does not take .*\(3, 64, 64\)"):
        pliant.export(model, tmp_path / "net.onnx", image_size=64)
    assert describe(model, example=torch.zeros(1, 3, 32, 64)).info["inputs"] == "3x32x64 images"
    with pytest.raises(ValueError, match="this Linear does not take 4 px images"):
        describe(nn.Linear(3, 2), 4)


def test_floating_point_numbers_have_the_type_of_the_network():
    model = adapted("dictionary")
    table = pliant.measure(model, dtype="bfloat16", **QUICK)
    assert table.info["dtype"] == "bfloat16"
    moved = placed(example_of("dictionary"), "cpu", torch.float16)
    assert moved["x"].dtype == torch.float16 and moved["ids"].dtype == torch.long and moved["scale"] == 2.0


@pytest.mark.parametrize("form", [dict, tuple])
def test_channels_are_followed_without_the_values_of_a_mask(form):
    ids = torch.randint(1, 30, (2, 7))
    size = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    bert = transformers.BertForSequenceClassification(transformers.BertConfig(**size, vocab_size=30))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    example: Any = given if form is dict else tuple(given.values())
    model = pliant.adapt_(bert.eval(), pliant.Width(choices=(0.5, 1.0)), example=example)
    small, large = pliant.measure(model, latency=False, memory=False, energy=False).rows
    assert small["gmacs"] < 0.7 * large["gmacs"]


def test_a_policy_answers_one_tensor_alone():
    model = adapted("dictionary", pliant.Exits())
    policy = pliant.ConfidencePolicy(subnets=("exit=1", "exit=2"), thresholds=(0.4, float("-inf")), num_classes=3)
    with pytest.raises(ValueError, match="predict: got a batch that is a dict, expected"):
        pliant.predict(model, example_of("dictionary"), policy)
