from __future__ import annotations

import json

import pytest
import torch

from pliant.adapt import adapt_
from pliant.create import create_model
from pliant.depth.config import Depth


def rows_of(cli, *arguments: object) -> dict[str, dict]:
    result = cli("describe", *arguments, "--json")
    assert result.status == 0, result.err
    return {row["subnet"]: row for row in json.loads(result.out)}


def test_resnet50_has_the_numbers_of_the_paper(cli) -> None:
    rows = rows_of(cli, "torchvision:resnet50")
    assert len(rows) == 16
    assert rows["FFFF"]["gmacs"] == pytest.approx(4.09, rel=0.01)
    assert rows["TTTT"]["gmacs"] == pytest.approx(2.56, rel=0.01)
    assert rows["FFFF"]["params_m"] == pytest.approx(25.56, abs=0.01)
    assert {round(row["adapted_params_m"], 2) for row in rows.values()} == {25.58}


def test_rows_go_from_the_smallest_to_the_largest(cli) -> None:
    rows = list(rows_of(cli, "pliant:resnet20").values())
    assert rows[0]["subnet"] == "TTT"
    assert rows[-1]["subnet"] == "FFF"
    assert [row["gmacs"] for row in rows] == sorted(row["gmacs"] for row in rows)


def test_resnet101_base_net(cli) -> None:
    assert rows_of(cli, "torchvision:resnet101")["TTTT"]["gmacs"] == pytest.approx(4.53, rel=0.01)


def test_image_size_changes_macs_and_not_parameters(cli) -> None:
    small, large = (rows_of(cli, "pliant:resnet20", "--image-size", size)["FFF"] for size in (16, 32))
    assert large["gmacs"] > 3 * small["gmacs"]
    assert large["params_m"] == small["params_m"]


def test_a_table_for_people(cli) -> None:
    result = cli("describe", "pliant:resnet20")
    assert "8 sub-networks" in result.out
    assert "GMACs" in result.out


def test_a_run_folder_is_described_at_its_own_image_size(cli, run_folder) -> None:
    trained = rows_of(cli, run_folder)
    assert trained["FFF"]["gmacs"] == rows_of(cli, "pliant:resnet20", "--image-size", 16)["FFF"]["gmacs"] - 64 * 8 / 1e9


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("torchvision:resnet5", "resnet50"),
        ("torchvison:resnet50", "torchvision"),
        ("runs/never", "neither a run folder nor a model"),
        ("timm:resnet10t", "no skippable stage"),
        ("torchvision:alexnet", "no residual blocks; found 2 runs of equal modules"),
    ],
)
def test_what_cannot_be_described_is_refused(refused, model: str, said: str) -> None:
    line = refused("describe", model)
    assert said in line


def test_an_image_size_of_zero_is_refused(refused) -> None:
    assert "0" in refused("describe", "pliant:resnet20", "--image-size", "0")


@pytest.fixture(scope="module")
def authors_file(tmp_path_factory: pytest.TempPathFactory):
    """A checkpoint as the ADN authors publish them, of a ResNet-50 with seven classes."""
    with torch.device("meta"):
        shapes = adapt_(create_model("torchvision:resnet50", num_classes=7), Depth()).state_dict()
    tensors = {key.replace(".skip.", "_skip."): torch.zeros(tensor.shape) for key, tensor in shapes.items()}
    path = tmp_path_factory.mktemp("authors") / "model_149.pth"
    averaged = {f"module.{key}": tensor for key, tensor in tensors.items()} | {"n_averaged": torch.tensor(3)}
    torch.save({"model": tensors, "model_ema": averaged, "epoch": 149}, path)
    return path


def test_a_checkpoint_of_the_authors_is_recognised(cli, authors_file) -> None:
    rows = rows_of(cli, authors_file)
    assert len(rows) == 16
    assert rows["TTTT"]["gmacs"] == pytest.approx(2.56, rel=0.01)
    found = {"model": "torchvision:resnet50", "checkpoint": "ADN authors", "weights": "model_ema", "num_classes": 7}
    assert all(row.items() >= found.items() for row in rows.values())
    said = "torchvision:resnet50, checkpoint of ADN authors (model), 7 classes; 16 sub-networks in"
    assert said in cli("describe", authors_file, "--no-ema").out


def test_a_checkpoint_of_a_library_is_recognised_and_adapted(cli, tmp_path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(create_model("pliant:resnet20").state_dict(), path)
    assert {row["model"] for row in rows_of(cli, path).values()} == {"pliant:resnet20"}
    assert rows_of(cli, path, "--model", "pliant:resnet20").keys() == rows_of(cli, "pliant:resnet20").keys()


def test_checkpoints_of_nothing_known_are_refused(refused, tmp_path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.zeros(2)}, path)
    assert "of no network that pliant recognises: its names begin with weight" in refused("describe", path)
    path.write_bytes(b"half a file")
    assert "truncated, corrupt" in refused("describe", path)
    assert "--model and --ema are for checkpoint files" in refused("describe", "pliant:resnet20", "--model", "x:y")


def test_texts_are_counted_in_tokens(cli, tmp_path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=4, n_embd=32, n_head=2, vocab_size=50, architectures=["GPT2LMHeadModel"])
    config.save_pretrained(tmp_path)
    assert "128 tokens" in cli("describe", f"transformers:{tmp_path}").out


def test_widths_cost_what_slimmable_networks_do(cli) -> None:
    rows = rows_of(cli, "torchvision:resnet50", "--axes", "width")
    # Published: 4.1, 2.3, 1.1 and 0.278; 1.1 is 1.05 rounded up.
    costs = {"width=0.25": 0.278, "width=0.5": 1.052, "width=0.75": 2.32, "width=1.0": 4.09}
    assert {name: row["gmacs"] for name, row in rows.items()} == pytest.approx(costs, rel=0.02)
    params_m = {"width=0.25": 2.0, "width=0.5": 6.9, "width=0.75": 14.8, "width=1.0": 25.6}
    assert {name: row["params_m"] for name, row in rows.items()} == pytest.approx(params_m, rel=0.02)


def test_two_axes_multiply(cli) -> None:
    rows = rows_of(cli, "torchvision:resnet18", "--axes", "width+depth", "--image-size", 64)
    assert len(rows) == 4 * 16
    assert rows["width=0.5,depth=TTTT"]["gmacs"] < rows["width=0.5,depth=FFFF"]["gmacs"]


@pytest.mark.parametrize("axes", ["widht", "width+width", ""])
def test_an_axis_that_is_not_there_is_refused(cli, axes) -> None:
    result = cli("describe", "pliant:resnet20", "--axes", axes)
    assert result.status != 0
    assert result.err == f"error: axes: got {axes!r}, expected some of depth, exits, width, joined by a plus\n"


def test_what_cannot_be_cut_is_said(cli) -> None:
    result = cli("describe", "pliant:resnet20", "--axes", "width")
    assert result.status != 0
    assert "'layer1.2.conv2' and 'layer2.2.conv2' cannot be cut together" in result.err
    assert result.err.count("\n") == 1
