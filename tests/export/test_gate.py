"""A file whose gate chooses the width."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import pliant
import pliant.runtime
from pliant.core.adaptive import AdaptiveModule
from pliant.export import ExportError
from pliant.export.ship import read_metadata
from pliant.width.gates import gate_of


def gated(name: str, *, attention: bool = True, **options: Any) -> tuple[AdaptiveModule, Tensor]:
    """A network, and images that its gate sends different ways."""
    torch.manual_seed(0)
    model = pliant.create_model(name, num_classes=10, **options)
    pliant.adapt_(model, pliant.Width(choices=(0.25, 0.5, 1.0), gate=pliant.Gate(attention=attention)))
    assert isinstance(model, AdaptiveModule)
    images = torch.randn(8, 3, 32, 32) * torch.linspace(0.1, 4, 8).view(-1, 1, 1, 1)
    with torch.no_grad():
        for subnet in model.train().subnets:
            model(images, subnet=subnet)
        gate = gate_of(model.eval())
        if gate.expand is not None:
            nn.init.normal_(gate.expand.weight, std=0.5)
        mean = nn.functional.normalize(model.seen_by_gate(images)[1].mean(0), dim=0)
        gate.choose.weight -= torch.outer(gate.choose.weight @ mean, mean)
    return model, images


def profiled_convolutions(path: Path, image: Tensor, folder: Path) -> int:
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, {"images": image.numpy()})
    text = Path(session.end_profiling()).read_text()
    return text.count('"op_name" : "Conv"') + text.count('"op_name" : "FusedConv"')


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_one_of_its_sub_networks_alone_takes_any_number_of_images(tmp_path: Path, ending: str) -> None:
    model, images = gated("pliant:resnet20", shortcut="projection")
    subnet = str(model.routes[1])
    path = pliant.export(model, tmp_path / f"net.{ending}", subnet=subnet, image_size=32).path
    net = pliant.runtime.load(path)
    for some in (images[:1], images[:3]):
        with torch.no_grad():
            expected = model(some, subnet=subnet)
        torch.testing.assert_close(torch.from_numpy(net(some.numpy())), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "options", "attention"),
    [
        ("pliant:resnet20", {"shortcut": "projection"}, True),
        pytest.param("pliant:resnet20", {"shortcut": "projection"}, False, marks=pytest.mark.slow),
        pytest.param("torchvision:mobilenet_v2", {}, True, marks=pytest.mark.slow),
    ],
)
def test_the_file_goes_the_ways_of_the_model(
    name: str, options: dict[str, Any], attention: bool, tmp_path: Path
) -> None:
    model, images = gated(name, attention=attention, **options)
    path = tmp_path / "net.onnx"
    report = pliant.export(model, path, policy="gate", image_size=32)
    assert report.subnets == tuple(map(str, model.routes))
    assert read_metadata(path)["routes"] == list(report.subnets)
    logits, places = pliant.predict(model, images, policy="gate")
    assert len(places.unique()) > 1, "the test needs images that go different ways"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for image, expected, place in zip(images.split(1), logits, places, strict=True):
        answer, route = session.run(None, {"images": image.numpy()})
        assert route.tolist() == [place]
        torch.testing.assert_close(torch.from_numpy(answer[0]), expected, atol=1e-4, rtol=1e-3)
    # All weights are there once, whichever way they go.
    weights = sum(tensor.nbytes for tensor in model.state_dict().values()) / 1e6
    assert report.size_mb < 1.1 * weights + 0.2


def test_one_route_alone_runs(tmp_path: Path) -> None:
    model, images = gated("pliant:resnet20", shortcut="projection")
    path = tmp_path / "net.onnx"
    pliant.export(model, path, policy="gate", image_size=32)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    assert profiled_convolutions(path, images[:1], tmp_path) == convolutions


def test_what_no_file_can_do_is_refused(tmp_path: Path) -> None:
    model, _ = gated("pliant:resnet20", shortcut="projection")
    for options, said in (
        ({"batch": 2}, "one input at a time"),
        ({"subnet": "largest"}, "subnet: not together with a policy"),
    ):
        with pytest.raises(ExportError, match=said):
            pliant.export(model, tmp_path / "net.onnx", policy="gate", image_size=32, **options)
    with pytest.raises(ExportError, match="has to be ONNX"):
        pliant.export(model, tmp_path / "net.pt2", policy="gate", image_size=32)
    plain = pliant.adapt_(pliant.create_model("pliant:resnet20", shortcut="projection"), pliant.Width())
    with pytest.raises(ValueError, match="has no gate"):
        pliant.export(plain, tmp_path / "net.onnx", policy="gate", image_size=32)
    assert not list(tmp_path.iterdir())
