"""A file is kept only if its own runtime computes what the network computes."""

import json
import logging
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pliant.adapt import adapt_
from pliant.core.macs import count_gmacs, count_params_m
from pliant.create import create_model
from pliant.depth.config import Depth
from pliant.export import ExportError, export, read_metadata
from pliant.extract import extract
from pliant.models.resnet import CifarResNet
from pliant.recalibrate import recalibrated
from pliant.runtime import load
from pliant.width.config import Width


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def adapted(name: str = ""):
    """An adapted network whose two norm sets differ, as they do after training."""
    torch.manual_seed(0)
    model = adapt_(create_model(name, num_classes=10) if name else CifarResNet(14), Depth())
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return model


def run_onnx(path: Path, images: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def run_program(path: Path, images: torch.Tensor) -> torch.Tensor:
    return torch.export.load(path).module()(images)


RUN = {".onnx": run_onnx, ".pt2": run_program}


@pytest.mark.parametrize("name", ["", pytest.param("pliant:resnet20", marks=pytest.mark.slow)])
@pytest.mark.parametrize("ending", RUN)
def test_every_subnet_of_a_cifar_resnet(tmp_path, ending, name):
    model = adapted(name).train()
    images = torch.randn(5, 3, 32, 32)
    outputs, sizes = [], []
    for subnet in model.subnets:
        report = export(model, tmp_path / f"{subnet}{ending}", subnet=subnet, image_size=32)
        output = RUN[ending](report.path, images)
        with torch.no_grad():
            expected = extract(model, subnet).eval()(images)
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
        outputs.append(output)
        sizes.append(report.size_mb)
    assert len(outputs) == 8
    for i, one in enumerate(outputs):  # every file is a network of its own
        assert all((one - other).abs().max() > 1e-3 for other in outputs[i + 1 :])
    assert max(sizes) == sizes[-1] and min(sizes) == sizes[0]
    assert model.training, "the model given is not changed"


@pytest.mark.parametrize("ending", RUN)
@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18d"])
def test_library_networks(tmp_path, name, ending):
    model = adapted(name)
    images = torch.randn(2, 3, 64, 64)
    for subnet in ("FFFF", "TFTT"):
        report = export(model, tmp_path / f"net{ending}", subnet=subnet, image_size=64)
        with torch.no_grad():
            expected = extract(model, subnet).eval()(images)
        torch.testing.assert_close(RUN[ending](report.path, images), expected, rtol=1e-3, atol=1e-4)
        assert report.subnet == subnet and report.difference <= 1e-4


def test_onnx_file_is_whole_and_lean(tmp_path):
    model = adapted("torchvision:resnet18")
    path = export(model, tmp_path / "net.onnx", image_size=32).path
    assert list(tmp_path.iterdir()) == [path], "one file, weights inside, nothing else left"
    assert b"pkg.torch" not in path.read_bytes(), "the exporter's notes for debugging are gone"
    graph = onnx.load(path).graph
    operators = {node.op_type for node in graph.node}
    assert "BatchNormalization" not in operators, "norms are folded into the convolutions"
    bytes_of_weights = 4 * sum(p.numel() for p in extract(model, "largest").parameters())
    assert path.stat().st_size == pytest.approx(bytes_of_weights, rel=0.01)
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param, "any batch size"


@pytest.mark.parametrize("ending", RUN)
def test_a_narrow_network_takes_no_wide_weights_along(tmp_path, ending):
    model = adapt_(CifarResNet(20, shortcut="projection"), Width(choices=(0.25, 1.0))).eval()
    narrow, alone = (tmp_path / f"{name}{ending}" for name in ("narrow", "alone"))
    export(model, narrow, subnet="width=0.25", image_size=32)
    export(extract(model, "width=0.25"), alone, image_size=32)
    assert narrow.stat().st_size == pytest.approx(alone.stat().st_size, rel=0.02)


@pytest.mark.parametrize("ending", RUN)
def test_nothing_local_is_given_away(tmp_path, ending):
    path = export(adapted(), tmp_path / f"net{ending}", image_size=32).path
    content = path.read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in content
    assert str(Path(__file__).parents[2]).encode() not in content


@pytest.mark.parametrize("ending", RUN)
def test_the_file_describes_itself(tmp_path, ending):
    info = {
        "class_names": ("zero", "één"),
        "mean": (0.1, 0.2, 0.3),
        "std": [1, 1, 1],
        "gmacs": 0.041,
        "secret": "x",
    }
    path = export(adapted(), tmp_path / f"net{ending}", subnet="smallest", image_size=32, info=info).path
    found = read_metadata(path)
    assert found["subnet"] == "TTT" and found["image_size"] == 32 and found["class_names"] == ["zero", "één"]
    assert found["mean"] == [0.1, 0.2, 0.3] and found["gmacs"] == 0.041 and found["torch_version"]
    assert "secret" not in found and found["pliant_version"]


def test_what_nobody_says_it_costs_is_counted(tmp_path):
    model = adapted()
    (row,) = load(export(model, tmp_path / "net.onnx", subnet="TTT", image_size=32).path).table
    network = extract(model, "TTT")
    assert row["gmacs"] == pytest.approx(count_gmacs(network, 32))
    assert row["params_m"] == pytest.approx(count_params_m(network))


def test_report_in_words_and_as_json(tmp_path):
    report = export(adapted(), tmp_path / "net.onnx", image_size=32)
    assert report.role == "super-net" and report.subnet == "FFF" and report.size_mb > 0.1
    assert "super-net FFF" in str(report) and "3x32x32" in str(report) and "ONNX Runtime" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["input_shape"] == [3, 32, 32]
    plain = export(CifarResNet(8), tmp_path / "plain.pt2", image_size=32)
    assert plain.subnet is None and plain.role == "network"


def test_fixed_batch_and_other_channels(tmp_path):
    report = export(CifarResNet(8, in_channels=1), tmp_path / "n.onnx", image_size=16, batch=4)
    dims = onnx.load(report.path).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [4, 1, 16, 16] and report.batch == 4


def test_image_size_known_to_the_library(tmp_path):
    assert export(create_model("torchvision:resnet18"), tmp_path / "n.pt2").input_shape == (3, 224, 224)
    assert export(adapted(), tmp_path / "m.pt2", info={"image_size": 24}).input_shape == (3, 24, 24)
    assert export(adapted(), tmp_path / "o.pt2").input_shape == (3, 32, 32)
    with pytest.raises(ExportError, match="this Restless does not say its image size; pass image_size="):
        export(Restless(), tmp_path / "p.pt2")


class Restless(nn.Module):
    """Never computes the same twice, so no file can agree with it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return F.dropout(self.conv(x), 0.5, training=True).mean((2, 3))


@pytest.mark.parametrize("ending", RUN)
def test_a_file_that_differs_is_not_kept(tmp_path, ending):
    target = tmp_path / f"net{ending}"
    target.write_text("the file that was there")
    with pytest.raises(ExportError, match=r"network differs from eager PyTorch by .*allowed: 1e-04") as failure:
        export(Restless(), target, image_size=8)
    assert "\n" not in str(failure.value)
    assert target.read_text() == "the file that was there" and list(tmp_path.iterdir()) == [target]


def test_tolerance_names_the_subnet(tmp_path):
    with pytest.raises(ExportError, match=r"base-net TTT differs from eager PyTorch by [\d.]+e-0\d"):
        export(adapted(), tmp_path / "net.onnx", subnet="TTT", image_size=32, tolerance=1e-12)
    assert not list(tmp_path.iterdir())


class TwoOutputs(Restless):
    def forward(self, x):
        return {"out": self.conv(x)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "net.tflite"}, r"unknown ending '.tflite'; expected .onnx \(ONNX\) or .pt2"),
        ({"path": "net"}, "unknown ending ''"),
        (
            {
                "path": ".",
            },
            "unknown ending",
        ),
        ({"subnet": "TTX"}, "no sub-network 'TTX'"),
        ({"subnet": "TTTT"}, "no sub-network 'TTTT'"),
        ({"image_size": 0.5}, "image_size: got 0.5"),
        ({"batch": 0}, "batch: got 0"),
        ({"tolerance": 0.0}, "tolerance: got 0"),
        ({"model": Restless(), "subnet": "FFF"}, "Restless has no sub-networks; leave subnet out"),
        ({"model": TwoOutputs()}, "returns a dict; expected logits"),
        ({"model": nn.Linear(3, 2)}, r"Linear does not take inputs of \(3, 32, 32\)"),
    ],
)
def test_bad_input_gets_one_line(tmp_path, change, message):
    arguments = {"model": adapted(), "path": "net.onnx", "image_size": 32} | change
    arguments["path"] = tmp_path / arguments["path"]
    with pytest.raises(ValueError, match=message) as failure:
        export(**arguments)
    assert "\n" not in str(failure.value)
    assert not list(tmp_path.iterdir())


def test_a_network_that_gives_nan_is_refused(tmp_path):
    model = adapted()
    with torch.no_grad():
        model.fc.bias.fill_(float("nan"))
    with pytest.raises(ExportError, match="not finite"):
        export(model, tmp_path / "net.onnx", image_size=32)
    assert not list(tmp_path.iterdir())


def test_missing_runtime_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r"needs the package onnxruntime, .* pip install onnxruntime"):
        export(adapted(), tmp_path / "net.onnx", image_size=32)
    assert export(adapted(), tmp_path / "net.pt2", image_size=32).path.exists()


@pytest.mark.parametrize("ending", RUN)
def test_the_exporter_is_quiet(tmp_path, capfd, caplog, ending):
    with caplog.at_level(logging.INFO):
        export(adapted(), tmp_path / f"net{ending}", image_size=32)
    out = capfd.readouterr()
    assert out.out == "" and out.err == ""
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]


@pytest.mark.parametrize("ending", RUN)
def test_a_recalibrated_network_is_what_its_file_computes(tmp_path, ending):
    model, images = adapted().eval(), torch.randn(40, 3, 32, 32)
    network = recalibrated(model, "TFF", images.split(20))
    plain = export(network, tmp_path / f"plain{ending}", image_size=32)
    named = export(model, tmp_path / f"named{ending}", subnet="TFF", image_size=32, recalibrate_on=images.split(20))
    old = export(model, tmp_path / f"old{ending}", subnet="TFF", image_size=32)
    with torch.no_grad():
        expected = network(images[:5])
    for report in (plain, named):
        torch.testing.assert_close(RUN[ending](report.path, images[:5]), expected, rtol=1e-4, atol=1e-4)
    assert (RUN[ending](old.path, images[:5]) - expected).abs().max() > 1e-2
    assert [report.recalibrated_on for report in (plain, named, old)] == [None, 40, None]
    assert read_metadata(named.path)["recalibrated_on"] == 40
    assert "recalibrated_on" not in read_metadata(old.path)


def test_trained_sub_networks_keep_their_statistics_and_the_model_keeps_its_own(tmp_path):
    model, images = adapted().eval(), torch.randn(8, 3, 32, 32)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for subnet in ("largest", "smallest", "TFF"):
        report = export(model, tmp_path / "net.pt2", subnet=subnet, image_size=32, recalibrate_on=[images])
        assert report.recalibrated_on == (8 if subnet == "TFF" else None)
        if subnet != "TFF":
            with torch.no_grad():
                expected = model(images, subnet=subnet)
            torch.testing.assert_close(run_program(report.path, images), expected, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
