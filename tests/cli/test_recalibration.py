"""What was measured with norm statistics taken anew is what is shipped with them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pliant.adapt import adapt_
from pliant.checkpoint import load, read_info, save
from pliant.cli.measure import augment_of, load_data_of
from pliant.create import ModelSource, create_model
from pliant.depth.config import Depth
from pliant.export import read_metadata
from pliant.extract import extract
from pliant.measure.table import Table
from pliant.recalibrate import recalibrated, training_images
from pliant.width.config import Width

IMAGES = 8


@pytest.fixture
def run(run_folder: Path, image_folder: Path) -> Path:
    """A run folder with a recipe that varies its images, and norm statistics that are far from those of its images."""
    torch.manual_seed(0)
    model = load(run_folder)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean)
    save(model, run_folder, info=read_info(run_folder)["info"])
    (run_folder / "recipe.yaml").write_text(
        "model: {name: 'pliant:resnet20'}\nepochs: 1\n"
        f"data: {{source: '{image_folder}', image_size: 16, augment: {{padding: 4, flip: true}}}}\n"
    )
    return run_folder


@pytest.fixture
def measured_anew(cli, run: Path) -> Path:
    assert cli("measure", run, "--rounds", 1, "--threads", 1, "--recalibrate", IMAGES).status == 0
    return run


def run_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def run_program(path: Path) -> Callable[[Tensor], Tensor]:
    return torch.export.load(path).module()


def row_of(run: Path, subnet: str) -> dict:
    return next(row for row in Table.load(run / "table.json").rows if row["subnet"] == subnet)


@pytest.mark.parametrize(("ending", "runtime"), [(".onnx", run_onnx), (".pt2", run_program)])
def test_the_shipped_network_is_the_measured_one(cli, measured_anew, tmp_path, ending, runtime) -> None:
    file = tmp_path / f"net{ending}"
    result = cli("export", measured_anew, file, "--subnet", "FTT", "--recalibrate", IMAGES)
    assert result.status == 0, result.err
    assert result.err == ""
    assert f"norm statistics from {IMAGES} training images" in result.out
    metadata, row = read_metadata(file), row_of(measured_anew, "FTT")
    assert (metadata["subnet"], metadata["recalibrated_on"], metadata["acc1"]) == ("FTT", IMAGES, row["acc1"])

    model, data = load(measured_anew), load_data_of(measured_anew, None, read_info(measured_anew)["info"])
    images, labels = next(data.test.batches(64))
    shipped = runtime(file)(images)
    batches = training_images(data, IMAGES, augment_of(measured_anew))
    with torch.no_grad():
        expected = recalibrated(model, "FTT", batches)(images)
        of_the_training = extract(model, "FTT")(images)
    torch.testing.assert_close(shipped, expected, rtol=1e-4, atol=1e-4)
    assert (shipped - of_the_training).abs().max() > 0.1
    assert 100 * (shipped.argmax(1) == labels).float().mean().item() == pytest.approx(row["acc1"])


def test_a_file_without_the_statistics_of_the_table_does_not_carry_its_accuracy(cli, measured_anew, tmp_path) -> None:
    result = cli("export", measured_anew, tmp_path / "net.pt2", "--subnet", "FTT")
    assert result.status == 0, result.err
    assert len(result.err.splitlines()) == 1
    assert f"export it with --recalibrate {IMAGES}" in result.err
    metadata = read_metadata(tmp_path / "net.pt2")
    assert not {"acc1", "recalibrated_on"} & set(metadata)
    assert metadata["gmacs"] == row_of(measured_anew, "FTT")["gmacs"]

    result = cli("export", measured_anew, tmp_path / "net.pt2", "--subnet", "FTT", "--recalibrate", IMAGES - 4)
    assert f"from {IMAGES} training images of images; this file has norm statistics from {IMAGES - 4}" in result.err
    assert "acc1" not in read_metadata(tmp_path / "net.pt2")


def test_a_table_without_statistics_taken_anew_says_nothing_of_a_file_with_them(cli, run, tmp_path) -> None:
    assert cli("measure", run, "--rounds", 1).status == 0
    result = cli("export", run, tmp_path / "net.pt2", "--subnet", "TTF", "--recalibrate", IMAGES)
    assert "measure it with --recalibrate 8" in result.err
    assert "acc1" not in read_metadata(tmp_path / "net.pt2")
    assert cli("export", run, tmp_path / "net.pt2", "--subnet", "TTF").err == ""
    assert read_metadata(tmp_path / "net.pt2")["acc1"] == row_of(run, "TTF")["acc1"]


def test_a_trained_network_keeps_its_statistics(cli, measured_anew, tmp_path) -> None:
    subnet = "TTT"
    result = cli("export", measured_anew, tmp_path / "net.pt2", "--subnet", subnet, "--recalibrate", IMAGES)
    assert (
        result.err == f"--recalibrate changes nothing: {subnet} was trained and keeps the statistics of its training.\n"
    )
    images = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        expected = extract(load(measured_anew), subnet)(images)
    torch.testing.assert_close(run_program(tmp_path / "net.pt2")(images), expected, rtol=1e-4, atol=1e-4)
    metadata = read_metadata(tmp_path / "net.pt2")
    assert metadata["acc1"] == row_of(measured_anew, subnet)["acc1"]
    assert "recalibrated_on" not in metadata


def test_a_network_without_batch_norms_has_nothing_to_take_anew(cli, image_folder, tmp_path) -> None:
    options = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 8, "num_heads": 2}
    source = ModelSource(name="timm:vit_tiny_patch16_224", num_classes=2, options=options)
    model = adapt_(create_model(source.name, num_classes=2, **options), Depth())
    run = save(model, tmp_path / "vit", source=source, info={"image_size": 16})
    given = ("--data", image_folder, "--recalibrate", IMAGES)
    result = cli("measure", run, "--rounds", 1, *given)
    assert result.status == 0, result.err
    assert "has no batch norms, so there are no statistics to take anew" in result.err.splitlines()[0]
    assert "recalibrated_on" not in Table.load(run / "table.json").info
    result = cli("export", run, tmp_path / "net.pt2", "--subnet", "TFFF", *given)
    assert result.status == 0, result.err
    assert "has no batch norms" in result.err
    assert read_metadata(tmp_path / "net.pt2")["acc1"] == row_of(run, "TFFF")["acc1"]


def test_more_images_than_there_are_and_data_that_nobody_needs(refused, run, tmp_path) -> None:
    line = refused("export", run, tmp_path / "net.pt2", "--subnet", "FTT", "--recalibrate", 999)
    assert "recalibrate=999: allowed are 0 to 14" in line
    assert "--recalibrate" in refused("export", run, tmp_path / "net.pt2", "--data", "digits")
    assert not (tmp_path / "net.pt2").exists()


@pytest.mark.parametrize(
    ("accuracy", "info", "said"), [(85, {}, "TFF, FTT: "), (89, {}, ""), (85, {"recalibrated_on": 8}, "")]
)
def test_untrained_networks_that_fall_behind_are_told_what_helps(cli, run, monkeypatch, accuracy, info, said) -> None:
    accuracies = {"TTT": 90.0, "TFF": accuracy, "FTT": accuracy, "FFF": 92.0}
    rows = [{"subnet": subnet, "acc1": float(value)} for subnet, value in accuracies.items()]
    info = info | {"threads": 1, "device": "cpu", "cpu": "", "image_size": 16, "batch_size": 1, "dtype": "float32"}
    # Not by a dotted name: `pliant.measure` is the function.
    monkeypatch.setattr(import_module("pliant.measure.run"), "measure", lambda *given, **options: Table(rows, info))
    result = cli("measure", run)
    assert result.status == 0, result.err
    assert ("try --recalibrate 14, here and with pliant export" in result.err) == bool(said)
    assert said in result.err


@pytest.mark.parametrize(("recalibrated", "said"), [(0, "width=0.5,depth=TTT, width=0.5,depth=FFF"), (8, "")])
def test_widths_that_keep_their_own_statistics_are_not_told_to_take_them(
    cli, image_folder, tmp_path, monkeypatch, recalibrated, said
) -> None:
    options = {"shortcut": "projection"}
    source = ModelSource(name="pliant:resnet20", num_classes=2, options=options)
    configs = (Width(choices=(0.25, 0.5, 1.0)), Depth())
    model = adapt_(create_model(source.name, num_classes=2, **options), *configs)
    run = save(model, tmp_path / "run", source=source, info={"image_size": 16, "recalibrated": recalibrated})
    accuracies = {str(subnet): 90.0 if "=0.5" not in str(subnet) else 80.0 for subnet in model.subnets}
    rows = [{"subnet": subnet, "acc1": value} for subnet, value in accuracies.items()]
    info = {"threads": 1, "device": "cpu", "cpu": "", "image_size": 16, "batch_size": 1, "dtype": "float32"}
    monkeypatch.setattr(import_module("pliant.measure.run"), "measure", lambda *given, **options: Table(rows, info))
    result = cli("measure", run, "--data", image_folder)
    assert result.status == 0, result.err
    fallen = result.err.partition(": less accurate")[0].split(", ")
    assert {"width=0.5,depth=TFF"} <= set(fallen)  # has the statistics of nobody
    assert set(said.split(", ")) - {""} <= set(fallen)
    assert bool(said) == ("width=0.5,depth=TTT" in fallen)
