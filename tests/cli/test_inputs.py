"""A saved model whose card has an example: the commands need no image size, and no images."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

import pliant
from pliant.create import ModelSource
from pliant.runtime import load

FILE = Path(__file__).parent.with_name("inputs") / "own_inputs.py"
NAME = f"{FILE.name}:make"
INPUTS = {"table": "inputs 20", "non-square": "3x6x9 images", "dictionary": "ids 4, x 5"}


@pytest.fixture(params=INPUTS)
def kind(request, tmp_path, monkeypatch) -> str:
    """What a saved network takes, in the folder `run`."""
    spec = importlib.util.spec_from_file_location("own_inputs", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / FILE.name).write_text(FILE.read_text())
    monkeypatch.chdir(tmp_path)
    model = pliant.adapt_(module.make(request.param), pliant.Depth(), example=module.CASES[request.param][1])
    pliant.save(model, "run", source=ModelSource(name=NAME, options={"kind": request.param}))
    return request.param


def test_they_take_what_the_model_takes(cli, kind) -> None:
    said = cli("describe", "run", "--model", NAME)
    assert said.status == 0 and said.out.splitlines()[0].endswith(f", {INPUTS[kind]}"), said
    measured = cli("measure", "run", "--model", NAME, "--rounds", 6, "--no-energy")
    assert measured.status == 0 and INPUTS[kind] in measured.out, measured
    assert "No accuracy" in measured.err
    table = json.loads(Path("run/table.json").read_text())
    assert table["info"]["inputs"] == INPUTS[kind] and "acc1" not in table["rows"][0]
    exported = cli("export", "run", "net.onnx", "--model", NAME)
    assert exported.status == 0, exported
    assert load("net.onnx").table[0]["gmacs"] == table["rows"][-1]["gmacs"]
    of_file = cli("measure", "net.onnx", "--rounds", 6, "--no-energy")
    assert of_file.status == 0 and INPUTS[kind] in of_file.out, of_file


def test_an_image_size_is_refused_where_there_is_no_image(cli, refused, kind) -> None:
    if kind == "non-square":
        assert cli("describe", "run", "--model", NAME, "--image-size", 12).status == 0
        return
    assert "image_size: got 12" in refused("describe", "run", "--model", NAME, "--image-size", 12)
    assert "image_size: got 12" in refused("export", "run", "net.onnx", "--model", NAME, "--image-size", 12)
