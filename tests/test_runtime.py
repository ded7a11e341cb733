"""The reader of switchable files: it needs no PyTorch, and says in one line what is wrong."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch

import pliant
import pliant.runtime
from pliant.models.resnet import CifarResNet

TABLE = [
    {"subnet": "TTT", "acc1": 80.5, "latency_ms": 1.5},
    {"subnet": "TFT", "acc1": 85.0, "latency_ms": 2.0},
    {"subnet": "FFF", "acc1": 90.25, "latency_ms": 3.0},
]
IMAGES = numpy.random.default_rng(0).standard_normal((2, 3, 16, 16), dtype=numpy.float32)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return pliant.adapt_(CifarResNet(14, num_classes=5), pliant.Depth()).eval()


@pytest.fixture(scope="module")
def file(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("file") / "net.onnx"
    info = {"table": TABLE, "class_names": list("abcde")}
    return pliant.export(model, path, switchable="fast", image_size=16, info=info).path


@pytest.fixture(scope="module")
def net(file):
    return pliant.runtime.load(file, threads=1)


def test_every_sub_network_by_its_text(net, model):
    assert net.subnets == tuple(map(str, model.subnets))
    for subnet in (*net.subnets, None):
        with torch.no_grad():
            expected = model(torch.from_numpy(IMAGES), subnet=subnet)
        numpy.testing.assert_allclose(net(IMAGES, subnet=subnet), expected.numpy(), rtol=1e-4, atol=1e-4)


def test_what_the_file_says(net):
    assert net.info["class_names"] == list("abcde") and net.info["image_size"] == 16
    assert [row["subnet"] for row in net.table] == list(net.subnets) and "skip" not in net.table[0]
    assert net.pick(latency_ms=2.5)["subnet"] == "TFT"
    assert net.pick(gmacs=net.table[0]["gmacs"])["subnet"] == "TTT"
    with pytest.raises(ValueError, match=r"latency_ms=1 cannot be met: the fastest sub-network is TTT at 1.5 ms"):
        net.pick(latency_ms=1)


def test_pytorch_is_not_loaded(file):
    code = (
        "import sys, numpy, pliant.runtime\n"
        f"net = pliant.runtime.load({str(file)!r}, threads=1)\n"
        "net(numpy.zeros((1, 3, 16, 16), numpy.float32), subnet=net.pick(latency_ms=9)['subnet'])\n"
        "assert 'torch' not in sys.modules and 'onnx' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("inputs", "subnet", "message"),
    [
        (IMAGES, "TTX", "no sub-network 'TTX': allowed are TTT, "),
        (IMAGES.astype(numpy.float64), "TTT", "inputs: got float64, expected a NumPy array of float32"),
        ([[0.0]], "TTT", "inputs: got list, expected a NumPy array of float32"),
        (IMAGES[:, :, :8], "TTT", r"inputs: got shape \[2, 3, 8, 16\], expected \[\w+, 3, 16, 16\]"),
        (IMAGES[0], "TTT", r"inputs: got shape \[3, 16, 16\], expected"),
    ],
)
def test_wrong_inputs_get_one_line(net, inputs, subnet, message):
    with pytest.raises(ValueError, match=message) as failure:
        net(inputs, subnet=subnet)
    assert "\n" not in str(failure.value)


def test_a_damaged_program_gets_one_line_and_no_more(tmp_path, caplog):
    whole, damaged = tmp_path / "whole.pt2", tmp_path / "damaged.pt2"
    pliant.export(pliant.create_model("pliant:resnet20"), whole, image_size=32)
    damaged.write_bytes(whole.read_bytes()[:3000])
    caplog.clear()
    with pytest.raises(ValueError, match="PyTorch does not load it: ") as failure:
        pliant.runtime.load(damaged)
    assert "\n" not in str(failure.value)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_other_files_get_one_line(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a graph")
    for path, message in [
        (broken, "ONNX Runtime does not load it"),
        (tmp_path / "none.onnx", "there is no such file"),
    ]:
        with pytest.raises(ValueError, match=message) as failure:
            pliant.runtime.load(path)
        assert str(path) in str(failure.value) and "\n" not in str(failure.value)
