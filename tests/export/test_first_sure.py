"""One file that returns the first confident answer: it computes what the network does, and nothing behind."""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import pliant
from pliant.core.fingerprint import fingerprint
from pliant.depth.config import Depth
from pliant.exits.config import Exits
from pliant.export import ExportError, export, first_sure, read_metadata
from pliant.models.msdnet import MSDNet
from pliant.models.resnet import CifarResNet
from pliant.policy.certainty import confidence_of
from pliant.policy.confidence import ConfidencePolicy
from pliant.policy.runner import all_logits, predict

EXITS = ("exit=1", "exit=2", "exit=3")
IMAGES = (
    torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    * torch.linspace(0.3, 3, 24)[:, None, None, None]
)


def with_statistics(model: nn.Module) -> nn.Module:
    """Norms that differ, as after training, so that a wrong one is seen, and answers that differ by the image."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
        # Classifiers alone: such weights within a transformer make it chaotic, so that float32 itself is off by 0.03.
        elif isinstance(module, nn.Linear) and module.out_features == 5:
            nn.init.normal_(module.weight, std=0.5)
    return model.eval()


def resnet(*configs, depth: int = 8) -> nn.Module:
    return with_statistics(pliant.adapt_(CifarResNet(depth, num_classes=5), *(configs or (Exits(),))))


def msdnet() -> nn.Module:
    return with_statistics(pliant.adapt_(MSDNet(3, channels=4, growth=2, num_classes=5), Exits()))


def policy_of(
    model: nn.Module, subnets: Sequence[str], measure: str = "max_softmax", temperatures: tuple[float, ...] = ()
) -> ConfidencePolicy:
    """A policy by which about as many of `IMAGES` leave at each sub-network."""
    inside = torch.ones(len(IMAGES), dtype=torch.bool)
    thresholds = []
    for place, logits in enumerate(all_logits(model, IMAGES, subnets)):
        sure = confidence_of(logits, measure, temperatures[place] if temperatures else 1.0)
        waiting = sure[inside].sort().values
        # Between two images, so that rounding does not move one.
        cut = len(waiting) - len(waiting) // (len(subnets) - place)
        thresholds.append(((waiting[cut - 1] + waiting[cut]) / 2).item() if cut else -math.inf)
        inside &= sure < thresholds[-1]
    return ConfidencePolicy(
        subnets=tuple(subnets),
        thresholds=tuple(thresholds),
        num_classes=5,
        measure=measure,
        temperatures=temperatures,
        fingerprint=fingerprint(model),
    )


def session_of(path: Path, **settings: object) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    for name, value in settings.items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def answers_of(path: Path, images: Tensor = IMAGES) -> tuple[Tensor, Tensor]:
    session = session_of(path)
    pairs = [session.run(["logits", "exit"], {"images": image[None].numpy()}) for image in images]
    return torch.cat([torch.from_numpy(one) for one, _ in pairs]), torch.tensor([int(number[0]) for _, number in pairs])


def refuse_differences(path: Path, model: nn.Module, policy: ConfidencePolicy) -> list[int]:
    """Assert that a file answers as `predict` does; return how many images each sub-network answered."""
    logits, places = predict(model, IMAGES, policy)
    given, numbers = answers_of(path)
    assert torch.equal(numbers, places + 1)
    torch.testing.assert_close(given, logits, rtol=1e-4, atol=1e-4)
    return torch.bincount(places, minlength=len(policy.subnets)).tolist()


@pytest.mark.parametrize("measure", ["max_softmax", "entropy", "margin"])
def test_a_file_answers_as_predict_does_with_every_measure(tmp_path, measure):
    model = resnet()
    policy = policy_of(model, EXITS, measure, (0.5, 2.0, 1.0))
    report = export(model, tmp_path / "net.onnx", policy=policy, image_size=16)
    assert refuse_differences(report.path, model, policy) == [8, 8, 8]
    assert list(tmp_path.iterdir()) == [report.path]
    assert (report.subnets, report.batch, report.role) == (EXITS, 1, "policy")
    assert "the first sure answer of exit=1, exit=2, exit=3" in str(report) and "every path" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["subnets"] == list(EXITS)


DEPTH_AND_EXITS = ("depth=TFF,exit=1", "depth=TTF,exit=2", "exit=3")


@pytest.mark.parametrize(
    ("make", "subnets"),
    [
        (msdnet, EXITS),
        (lambda: resnet(Exits(collaboration="linear")), EXITS),
        (lambda: resnet(Depth(), depth=14), ("TTT", "TFF", "FFF")),
        (lambda: resnet(Depth(), Exits(), depth=14), DEPTH_AND_EXITS),
        (resnet, EXITS[:2]),
        (resnet, EXITS[1:2]),
    ],
    ids=["MSDNet", "collaborating", "cascade", "depth and exits", "ends before the network", "one"],
)
def test_networks(tmp_path, make, subnets):
    model = make()
    policy = policy_of(model, subnets)
    report = export(model, tmp_path / "net.onnx", policy=policy, image_size=16)
    assert all(refuse_differences(report.path, model, policy))
    assert report.difference <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["torchvision:resnet18", "timm:vit_tiny_patch16_224", "timm:swin_tiny_patch4_window7_224"]
)
def test_library_networks(tmp_path, name):
    model = with_statistics(pliant.adapt_(pliant.create_model(name, num_classes=5), Exits()))
    subnets = tuple(map(str, model.subnets))
    thresholds = (0.5,) * (len(subnets) - 1) + (-math.inf,)
    policy = ConfidencePolicy(subnets=subnets, thresholds=thresholds, num_classes=5)
    assert export(model, tmp_path / "net.onnx", policy=policy).subnets == subnets


def convolutions(graph: onnx.GraphProto) -> list[int]:
    """Count those of a graph, and of what is behind its condition, and so on."""
    behind = [attribute.g for node in graph.node for attribute in node.attribute if attribute.name == "else_branch"]
    own = sum(node.op_type == "Conv" for node in graph.node)
    return [own, *(convolutions(behind[0]) if behind else [])]


def ran(path: Path, image: Tensor, folder: Path) -> Counter[str]:
    """Count the operators that ONNX Runtime really ran, by its own profiler."""
    session = session_of(path, enable_profiling=True, profile_file_prefix=str(folder / "profile"))
    session.run(None, {"images": image[None].numpy()})
    events = json.loads(Path(session.end_profiling()).read_text())
    return Counter(event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time"))


@pytest.mark.parametrize("make", [resnet, msdnet])
def test_what_lies_behind_the_exit_does_not_run(tmp_path, make):
    model = make()
    policy = policy_of(model, EXITS)
    path = export(model, tmp_path / "net.onnx", policy=policy, image_size=16).path
    _, places = predict(model, IMAGES, policy)
    parts = convolutions(onnx.load(path).graph)
    assert len(parts) == 3 and min(parts) > 0
    for place in range(3):
        image = IMAGES[places == place][0]
        counts = ran(path, image, tmp_path)
        assert counts["Conv"] + counts["FusedConv"] == sum(parts[: place + 1]), counts
        assert counts["Gemm"] == place + 1, "a classifier for each exit on the way"


def test_what_the_policy_leaves_out_is_not_in_the_file(tmp_path):
    model = resnet()
    whole = policy_of(model, EXITS)
    first, _, last = whole.thresholds
    without = dataclasses.replace(whole, thresholds=(first, math.inf, last))
    ended = dataclasses.replace(whole, thresholds=(first, last, last))
    reports = [
        export(model, tmp_path / f"{number}.onnx", policy=policy, image_size=16)
        for number, policy in enumerate((whole, without, ended))
    ]
    assert [report.subnets for report in reports] == [EXITS, ("exit=1", "exit=3"), EXITS[:2]]
    assert set(answers_of(reports[1].path)[1].tolist()) == {1, 3}, "numbers are those of the policy"
    parts = [convolutions(onnx.load(report.path).graph) for report in reports]
    assert parts[1] == [parts[0][0], parts[0][1] + parts[0][2]] and parts[2] == parts[0][:2]
    assert b"layer3" not in reports[2].path.read_bytes()
    assert reports[2].size_mb < reports[1].size_mb < reports[0].size_mb


def test_weights_lie_in_the_branch_that_uses_them_and_shared_ones_lie_outside_once(tmp_path):
    model = resnet()
    path = export(model, tmp_path / "exits.onnx", policy=policy_of(model, EXITS), image_size=16).path
    outer = {weights.name for weights in onnx.load(path).graph.initializer}
    assert {"threshold_1", "threshold_2"} < outer and not any("layer2" in name or "layer3" in name for name in outer)
    # Convolutions that depths share keep their norms, of which there are two sets, beside them.
    cascade = resnet(Depth(), depth=14)
    path = export(cascade, tmp_path / "depths.onnx", policy=policy_of(cascade, ("TTT", "FFF")), image_size=16).path
    assert path.stat().st_size < 1.3 * 4 * sum(weights.numel() for weights in cascade.parameters())


def test_the_file_describes_itself(tmp_path):
    model = resnet()
    policy = policy_of(model, EXITS)
    info = {"class_names": ("a", "b", "c", "d", "e"), "gmacs": 0.5, "image_size": 16}
    path = export(model, tmp_path / "net.onnx", policy=policy, info=info).path
    found = read_metadata(path)
    assert ConfidencePolicy.from_dict(found["policy"]) == policy
    assert (found["batch"], found["image_size"], found["gmacs"]) == (1, 16, 0.5)
    assert found["class_names"] == list("abcde") and "subnet" not in found and found["pliant_version"]
    graph = onnx.load(path, load_external_data=False).graph
    assert [value.name for value in graph.output] == ["logits", "exit"]
    assert str(Path(torch.__file__).parent).encode() not in path.read_bytes()


def test_several_images_at_once_are_refused_by_the_runtime(tmp_path):
    model = resnet()
    path = export(model, tmp_path / "net.onnx", policy=policy_of(model, EXITS), image_size=16).path
    with pytest.raises(Exception, match="invalid dimensions"):
        session_of(path).run(None, {"images": IMAGES[:2].numpy()})


class Restless(nn.Module):
    """Never computes the same twice."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


def test_a_path_that_differs_is_named_and_the_file_is_not_kept(tmp_path):
    model = resnet()
    policy = policy_of(model, EXITS)
    model.layer3.append(Restless())
    target = tmp_path / "net.onnx"
    target.write_text("the file that was there")
    with pytest.raises(
        ExportError, match=r"not written, because the path to exit=3 differs from .* by [\d.e+-]+ \(al"
    ) as e:
        export(model, target, policy=policy, image_size=16)
    assert "\n" not in str(e.value)
    assert target.read_text() == "the file that was there" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("factor", [1.01, 0.99])
def test_a_file_that_is_not_as_sure_as_the_network_is_not_kept(tmp_path, monkeypatch, factor):
    right = first_sure.unchecked_confidence

    def wrong(logits: Tensor, measure: str, temperature: float) -> Tensor:
        return right(logits, measure, temperature) * factor

    monkeypatch.setattr(first_sure, "unchecked_confidence", wrong)
    model = resnet()
    with pytest.raises(ExportError, match=r"the path to exit=\d is not taken where it has to be"):
        export(model, tmp_path / "net.onnx", policy=policy_of(model, EXITS), image_size=16)
    assert not list(tmp_path.iterdir())


def plain_policy(**options) -> ConfidencePolicy:
    return ConfidencePolicy(**{"subnets": EXITS, "thresholds": (0.5, 0.5, -math.inf), "num_classes": 5} | options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "net.pt2"}, "a file with a policy has to be ONNX"),
        ({"path": "net.tflite"}, "unknown ending"),
        ({"policy": plain_policy(num_classes=7)}, "this policy is for 7 classes, and the network has 5"),
        ({"policy": plain_policy(fingerprint="0123")}, "for the network of fingerprint 0123"),
        ({"policy": plain_policy(subnets=("exit=1", "exit=2", "exit=4"))}, "no sub-network 'exit=4'"),
        ({"policy": plain_policy(subnets=("TTT", "TTF", "FFF"))}, "no sub-network 'TTT'"),
        ({"model": CifarResNet(8, num_classes=5)}, "this CifarResNet has no sub-networks; adapt it first"),
        ({"batch": 8}, "batch: got 8, but a file with a policy takes one input at a time"),
        ({"subnet": "exit=1"}, "subnet: not together with a policy"),
        ({"recalibrate_on": [IMAGES]}, "recalibrate_on: not together with a policy"),
        ({"image_size": 0.5}, "image_size: got 0.5"),
    ],
)
def test_bad_input_gets_one_line(tmp_path, change, message):
    arguments = {"model": resnet(), "path": "net.onnx", "image_size": 16, "policy": plain_policy()} | change
    arguments["path"] = tmp_path / arguments["path"]
    with pytest.raises(ValueError, match=message) as failure:
        export(**arguments)
    assert "\n" not in str(failure.value)
    assert not list(tmp_path.iterdir())


def test_a_network_that_gives_nan_is_refused(tmp_path):
    model = resnet()
    with torch.no_grad():
        model.fc.bias.fill_(math.nan)
    with pytest.raises(ExportError, match="exit=3: the logits of input 0 are not finite"):
        export(model, tmp_path / "net.onnx", policy=plain_policy(), image_size=16)
    assert not list(tmp_path.iterdir())
