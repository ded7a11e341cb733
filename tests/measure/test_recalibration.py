import pytest
import torch

import pliant
from pliant.data import Augment, load_data
from pliant.measure.accuracy import measure_accuracy


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return load_data("digits", cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def model():
    torch.manual_seed(0)
    adapted = pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Depth()).eval()
    for module in adapted.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()  # statistics that are not those of the images
    return adapted


def rows(table):
    return {row["subnet"]: row for row in table.rows}


def test_untrained_sub_networks_are_measured_with_their_own_statistics(model, digits):
    table = pliant.measure(
        model, digits, subnets=["TTT", "TFT", "FFF"], split="val", latency=False, memory=False, recalibrate=256
    )
    assert table.info["recalibrated_on"] == 256
    batches = [images for images, _ in digits.train.batches(128, shuffle=True)][:2]
    expected = {
        "TTT": pliant.extract(model, "TTT"),
        "TFT": pliant.recalibrated(model, "TFT", batches),
        "FFF": pliant.extract(model, "FFF"),
    }
    accuracies = measure_accuracy(expected, digits.val, 10, batch_size=256, device="cpu", dtype=torch.float32)
    assert {name: row["acc1"] for name, row in rows(table).items()} == {
        name: value["acc1"] for name, value in accuracies.items()
    }
    plain = rows(pliant.measure(model, digits, split="val", latency=False, memory=False))
    assert any(plain["TFT"][key] != rows(table)["TFT"][key] for key in ("acc1", "acc5"))


def test_the_images_are_varied_as_in_the_training(model, digits):
    augment = Augment(padding=4)
    options = dict(subnets=["TFT"], split="val", latency=False, memory=False, recalibrate=256)
    given = pliant.measure(model, digits, augment=augment, **options).rows[0]
    batches = [images for images, _ in digits.train.batches(128, shuffle=True, augment=augment)][:2]
    network = {"TFT": pliant.recalibrated(model, "TFT", batches)}
    expected = measure_accuracy(network, digits.val, 10, batch_size=256, device="cpu", dtype=torch.float32)["TFT"]
    assert given["acc1"] == expected["acc1"]
    plain = pliant.measure(model, digits, **options).rows[0]
    assert any(plain[key] != given[key] for key in ("acc1", "acc5"))


def test_recalibration_needs_training_images(model, digits):
    with pytest.raises(ValueError, match="recalibrate needs data"):
        pliant.measure(model, image_size=32, recalibrate=10)
    with pytest.raises(ValueError, match=r"recalibrate=9999: allowed are 0 to \d+"):
        pliant.measure(model, digits, recalibrate=9999)
