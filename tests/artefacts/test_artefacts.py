"""Contract 8. What earlier versions wrote is still read, and answers the same. `write.py` wrote it, once a format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import pliant
from pliant.core.inputs import logits_of
from pliant.measure.gate_table import GateTable
from pliant.measure.policy_table import PolicyTable
from pliant.report import report
from pliant.runtime import load as open_file
from pliant.train.engine import train

VERSIONS = sorted(path for path in Path(__file__).parent.iterdir() if (path / "golden.safetensors").exists())
RUNS = [pytest.param(run.parent, id=run.parent.name) for v in VERSIONS for run in sorted(v.glob("*/recipe.yaml"))]
FILES = [pytest.param(f, id=f.name) for v in VERSIONS for f in sorted(v.iterdir()) if f.suffix in (".onnx", ".pt2")]


def golden(folder: Path, prefix: str) -> tuple[Tensor, dict[str, Tensor]]:
    """The images, and what was answered to them, by sub-network."""
    tensors = load_file(folder / "golden.safetensors")
    found = {name.removeprefix(f"{prefix}/"): value for name, value in tensors.items() if name.startswith(f"{prefix}/")}
    assert found
    return tensors["images"], found


def own(run: Path) -> str | None:
    return f"{run.parent / 'network.py'}:make" if run.name.endswith("own") else None


def assert_answers(model: Any, images: Tensor, expected: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for subnet, logits in expected.items():
            if subnet == "gate":
                got = model.gated(images)[0]
            else:
                got = logits_of(model(images) if subnet == "only" else model(images, subnet=subnet))
            torch.testing.assert_close(got, logits, rtol=1e-4, atol=1e-4)


def test_there_are_files_of_every_kind():
    assert len(RUNS) >= 10
    assert len(FILES) >= 8


@pytest.mark.parametrize("run", RUNS)
def test_a_run_answers_what_it_answered(run: Path):
    images, expected = golden(run.parent, run.name)
    model: Any = pliant.load(run, model=own(run))
    assert_answers(model, images, expected)
    if "only" not in expected:
        assert set(map(str, model.subnets)) == set(expected) - {"gate"}
        plain = pliant.extract(model, "smallest")
        with torch.no_grad():
            torch.testing.assert_close(
                logits_of(plain(images)), expected[str(model.space.smallest)], rtol=1e-4, atol=1e-4
            )


@pytest.mark.parametrize("run", RUNS)
def test_recipes_and_tables_are_read(run: Path):
    recipe = pliant.Recipe.load(run / "recipe.yaml")
    assert recipe.epochs == 1
    assert recipe.data.source == "digits"
    table = pliant.Table.load(run / "table.json")
    assert table.pick(gmacs=1)["acc1"] == max(row["acc1"] for row in table.rows)
    if run.name == "exits":
        assert len(PolicyTable.load(run / "policies.json").rows) == 2
    if run.name == "gate":
        assert GateTable.load(run / "gate.json").static


@pytest.mark.parametrize("path", FILES)
def test_an_exported_file_answers_what_it_answered(path: Path):
    images, expected = golden(path.parent, path.name)
    if path.stem in ("policy", "gate"):  # they choose by themselves, one image at a time
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (name,) = (taken.name for taken in session.get_inputs())
        got = [session.run(None, {name: image})[0] for image in numpy.split(images.numpy(), len(images))]
        torch.testing.assert_close(torch.from_numpy(numpy.concatenate(got)), expected["all"], rtol=1e-3, atol=1e-4)
        return
    file = open_file(path)
    assert set(file.subnets) == set(expected)
    assert file.info["class_names"] == [str(digit) for digit in range(10)]
    # Processors round int8 differently.
    near = {"rtol": 0.1, "atol": 0.2} if path.stem == "int8" else {"rtol": 1e-3, "atol": 1e-4}
    for subnet, logits in expected.items():
        torch.testing.assert_close(torch.from_numpy(file(images.numpy(), subnet)), logits, **near)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_a_folder_for_the_hub_is_loaded(version: Path):
    images, expected = golden(version, "depth")
    assert_answers(pliant.load(version / "hub"), images, expected)
    card = json.loads((version / "hub" / "config.json").read_text())
    assert card["library_name"] == "pliant"


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_a_training_that_was_finished_is_gone_on_with_and_reported(version: Path, tmp_path: Path):
    run = shutil.copytree(version / "depth", tmp_path / "depth")
    resumed = train(pliant.Recipe.load(run / "recipe.yaml"), out=run, resume=True, progress=False, log=None)
    images, expected = golden(version, "depth")
    assert_answers(resumed.model, images, expected)
    page = report(shutil.copytree(version / "exits", tmp_path / "exits"))
    assert "exit=1" in page.read_text()
