"""One file with all sub-networks: each computes what the network does, and what it skips does not run."""

import json
import math
from collections import Counter
from pathlib import Path

import numpy
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import pliant
from pliant.core.adaptive import AdaptiveModule
from pliant.export import ExportError, export, read_metadata, switchable
from pliant.models.resnet import CifarResNet

MODES = ("fast", "compact")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@torch.no_grad()
def as_if_trained(model: nn.Module) -> nn.Module:
    """Let all norms differ, those that share a place too, so that a wrong one is seen."""
    torch.manual_seed(0)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(std=0.2)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def adapted(*configs, network: nn.Module | None = None) -> AdaptiveModule:
    """A CIFAR ResNet of three stages, whose projections can be cut as well."""
    torch.manual_seed(0)
    network = network or CifarResNet(14, num_classes=5, shortcut="projection")
    model = as_if_trained(pliant.adapt_(network, *(configs or (pliant.Depth(),))))
    assert isinstance(model, AdaptiveModule)
    return model


def session_of(path: Path, **settings: object) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    for name, value in settings.items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def switches(path: Path) -> dict[str, dict[str, numpy.ndarray]]:
    """For every sub-network what chooses it, as the file itself says."""
    rows = read_metadata(path)["subnets"]
    return {row["subnet"]: {key: numpy.array(row[key]) for key in ("skip", "width") if key in row} for row in rows}


def refuse_differences(path: Path, model: AdaptiveModule, images: Tensor) -> list[Tensor]:
    """Assert that every sub-network of a file is that of the model; return what each answers."""
    session, chosen = session_of(path), switches(path)
    assert list(chosen) == [str(subnet) for subnet in model.subnets]
    answers = []
    for subnet, switch in chosen.items():
        (logits,) = session.run(["logits"], {"images": images.numpy(), **switch})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), model(images, subnet=subnet), rtol=1e-4, atol=1e-4)
        answers.append(torch.from_numpy(logits))
    return answers


CONFIGS = {
    "depth": pliant.Depth(),
    "width": pliant.Width(choices=(0.25, 0.5, 1.0)),
    "private norms": pliant.Width(choices=(0.5, 1.0), norms="private"),
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((axis, mode), id=f"{axis} {mode}", marks=[pytest.mark.slow] if axis == "private norms" else [])
        for axis in CONFIGS
        for mode in MODES
    ],
)
def exported(request, tmp_path_factory):
    """A model, the report of its file, and the mode; exporting is slow, and so is done once for many tests."""
    axis, mode = request.param
    model = adapted(CONFIGS[axis])
    folder = tmp_path_factory.mktemp("exported")
    return model, export(model, folder / "net.onnx", switchable=mode, image_size=16, info=INFO), mode


TABLE = [{"subnet": "TTT", "acc1": 80.5, "latency_ms": 1.5}, {"subnet": "FFF", "acc1": 90.25, "latency_ms": 3.0}]
INFO = {
    "class_names": list("abcde"),
    "mean": (0.1, 0.2, 0.3),
    "table": TABLE,
    "measured": {"device": "cpu"},
    "secret": "x",
}


def test_every_sub_network(exported):
    model, report, _ = exported
    assert list(report.path.parent.iterdir()) == [report.path]
    for batch in (1, 4):
        answers = refuse_differences(report.path, model, torch.randn(batch, 3, 16, 16))
    for place, one in enumerate(answers):
        assert all((one - other).abs().max() > 1e-3 for other in answers[place + 1 :]), "each is a network of its own"
    assert (report.role, report.subnet, report.batch) == ("switchable", None, None)
    assert report.subnets == tuple(map(str, model.subnets)) and report.difference <= 1e-4
    assert f"{len(answers)} sub-networks from {report.subnets[0]} to {report.subnets[-1]}" in str(report)


NETWORKS = {
    "timm:resnet18d": ({}, 32, pliant.Depth()),
    "torchvision:mobilenet_v2": ({"width_mult": 0.25}, 32, pliant.Depth()),
    "timm:vit_tiny_patch16_224": ({"img_size": 32, "embed_dim": 48, "depth": 6}, 32, pliant.Depth()),
    "timm:swin_tiny_patch4_window7_224": ({"img_size": 56, "embed_dim": 24}, 56, pliant.Depth()),
    "torchvision:swin_t": ({}, 64, pliant.Depth()),
}
WIDE = {
    "timm:vit_tiny_patch16_224": ({"img_size": 32, "embed_dim": 64, "num_heads": 4, "depth": 2}, 32, pliant.Width())
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "how"), [*NETWORKS.items(), *WIDE.items()])
def test_library_networks(tmp_path, name, how, mode):
    options, size, config = how
    model = adapted(config, network=pliant.create_model(name, num_classes=5, **options))
    report = export(model, tmp_path / "net.onnx", switchable=mode, image_size=size)
    refuse_differences(report.path, model, torch.randn(2, 3, size, size))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("config", "limits"),
    [
        (pliant.Depth(), {"fast": 1.7, "compact": 1.02}),
        (pliant.Width(choices=(0.5, 1.0)), {"fast": 1.3, "compact": 1.02}),
    ],
    ids=["depth", "width"],
)
def test_sizes(tmp_path, mode, config, limits):
    model = adapted(config, network=pliant.create_model("torchvision:resnet18"))
    plain = export(model, tmp_path / "plain.onnx", image_size=32).size_mb
    assert export(model, tmp_path / "net.onnx", switchable=mode, image_size=32).size_mb <= plain * limits[mode]


def ran(path: Path, switch: dict[str, numpy.ndarray], folder: Path) -> Counter[str]:
    """Count the operators that ONNX Runtime really ran, by its own profiler."""
    session = session_of(path, enable_profiling=True, profile_file_prefix=str(folder / "profile"))
    session.run(None, {"images": numpy.zeros((1, 3, 16, 16), numpy.float32), **switch})
    events = json.loads(Path(session.end_profiling()).read_text())
    return Counter(event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time"))


def test_what_is_skipped_does_not_run_and_norms_are_folded(exported, tmp_path):
    model, report, _ = exported
    for subnet, switch in switches(report.path).items():
        network = pliant.extract(model, subnet)
        counts = ran(report.path, switch, tmp_path)
        assert counts["Conv"] + counts["FusedConv"] == sum(isinstance(m, nn.Conv2d) for m in network.modules())
        assert not counts["BatchNormalization"] and not counts["Slice"], "done when the file is loaded"


def convolutions(graph: onnx.GraphProto) -> list[tuple[int, ...]]:
    """Shapes of the weights of convolutions that lie in a graph and in its branches; without very small ones."""
    inner = [shape for node in graph.node for part in node.attribute for shape in convolutions(part.g)]
    shapes = [tuple(weights.dims) for weights in graph.initializer]
    return inner + [shape for shape in shapes if len(shape) == 4 and math.prod(shape) > 256]


def test_weights_lie_where_they_are_used_or_once(exported):
    model, report, mode = exported
    graph = onnx.load(report.path).graph
    layers = [module for module in pliant.extract(model, "largest").modules() if isinstance(module, nn.Conv2d)]
    once = sorted(tuple(layer.weight.shape) for layer in layers if layer.weight.numel() > 256)
    if mode == "compact":
        assert sorted(convolutions(graph)) == once
    else:
        assert len(convolutions(graph)) > len(once)
        assert not [weights.name for weights in graph.initializer if len(weights.dims) == 4], "none lies outside"


def test_the_file_describes_itself(exported):
    model, report, mode = exported
    found = read_metadata(report.path)
    assert (found["mode"], found["image_size"], found["class_names"]) == (mode, 16, list("abcde"))
    assert found["mean"] == [0.1, 0.2, 0.3] and found["measured"] == {"device": "cpu"}
    assert "secret" not in found and found["pliant_version"]
    first, *_, last = found["subnets"]
    assert 0 < first["gmacs"] < last["gmacs"] and 0 < first["params_m"] < last["params_m"]
    switch = "skip" if "skip" in first else "width"
    if switch == "skip":
        assert (first["skip"], first["acc1"], first["latency_ms"]) == ([True] * 3, 80.5, 1.5)
        assert (last["skip"], last["acc1"]) == ([False] * 3, 90.25)
    else:
        assert (first["width"], last["width"]) == (0, len(model.subnets) - 1)
    graph = onnx.load(report.path).graph
    assert [value.name for value in graph.input] == ["images", switch]
    assert [value.name for value in graph.output] == ["logits"]
    assert str(Path(torch.__file__).parent).encode() not in report.path.read_bytes()


@pytest.mark.slow
def test_a_fixed_batch(tmp_path):
    path = export(adapted(), tmp_path / "net.onnx", switchable="fast", image_size=16, batch=2).path
    assert [dim.dim_value for dim in onnx.load(path).graph.input[0].type.tensor_type.shape.dim] == [2, 3, 16, 16]
    refuse_differences(path, adapted(), torch.randn(2, 3, 16, 16))


class Stray(nn.Module):
    """Answers differently while the second stage runs in full, which no traced pair of sub-networks shows alone."""

    def __init__(self, model: AdaptiveModule) -> None:
        super().__init__()
        self.switch = [model._pliant_adaptation.switch]

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 if self.switch[0].skips(0) and not self.switch[0].skips(1) else x


def test_a_sub_network_that_differs_is_named_and_the_file_is_not_kept(tmp_path):
    model = adapted()
    model.fc = nn.Sequential(Stray(model), model.fc)
    target = tmp_path / "net.onnx"
    target.write_text("the file that was there")
    message = r"not written, because its sub-network TF[TF] differs from eager PyTorch by [\d.e+-]+ in ONNX Runtime"
    with pytest.raises(ExportError, match=message) as failure:
        export(model, target, switchable="fast", image_size=16)
    assert "\n" not in str(failure.value)
    assert target.read_text() == "the file that was there" and list(tmp_path.iterdir()) == [target]


def test_an_interrupted_export_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(switchable, "_differences", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(adapted(), tmp_path / "net.onnx", switchable="fast", image_size=16)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "net.pt2"}, "PyTorch runs no switchable files, which have to be ONNX"),
        ({"switchable": "small"}, "switchable: got 'small', expected fast or compact"),
        ({"subnet": "TTT"}, "subnet: not together with switchable"),
        ({"recalibrate_on": []}, "recalibrate_on: not together with switchable"),
        ({"model": CifarResNet(8)}, "this CifarResNet has no sub-networks; adapt it first"),
        ({"configs": [pliant.Exits()]}, "switches depth or width, and this model has exit; a file with exits is made"),
        ({"configs": [pliant.Depth(), pliant.Width()]}, "this model has width and depth"),
        ({"configs": [pliant.Width(per_stage=True)]}, "this model has 64 widths, .* 16 at most"),
        ({"image_size": 0.5}, "image_size: got 0.5"),
    ],
)
def test_bad_input_gets_one_line(tmp_path, change, message):
    given = {"path": "net.onnx", "image_size": 16, "switchable": "fast"} | change
    given = {"model": adapted(*given.pop("configs", []))} | given
    given["path"] = tmp_path / given["path"]
    with pytest.raises(ValueError, match=message) as failure:
        export(**given)
    assert "\n" not in str(failure.value)
    assert not list(tmp_path.iterdir())
