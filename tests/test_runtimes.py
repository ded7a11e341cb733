"""One table of runtimes: each runs what is exported for it, gives what PyTorch gives, and can be measured."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy
import onnx
import pytest
import torch

import pliant
import pliant.runtime
from pliant.data import load_data
from pliant.export import ExportError, read_metadata
from pliant.models.resnet import CifarResNet
from pliant.runtime.memory import file_memory_mb, why_no_memory
from pliant.runtime.runtimes import RUNTIMES

INFO = {"class_names": [str(digit) for digit in range(10)], "mean": [0.5] * 3, "std": [0.25] * 3}
IMAGES = numpy.random.default_rng(0).standard_normal((3, 3, 16, 16), dtype=numpy.float32)
SLOW = ("aotinductor", "executorch")
EACH = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in RUNTIMES]


def skip_where_no_memory_is_read() -> None:
    if why := why_no_memory():
        pytest.skip(why)


def skip_unless_installed(name: str) -> None:
    pytest.importorskip(RUNTIMES[name].package)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return pliant.adapt_(CifarResNet(14), pliant.Depth()).eval()


@pytest.fixture(scope="module")
def switchable(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("file") / "net.onnx"
    return pliant.export(model, path, switchable="fast", image_size=16, info=INFO).path


@pytest.mark.parametrize("name", EACH)
def test_each_gives_what_pytorch_gives(model, tmp_path, name):
    skip_unless_installed(name)
    runtime = RUNTIMES[name]
    path = tmp_path / f"net{runtime.ending}"
    report = pliant.export(model, path, runtime=name, subnet="TFT", image_size=16, info=INFO)
    assert report.runtime.startswith(runtime.title) and report.format == runtime.format
    net = pliant.runtime.load(path, runtime=name, threads=1)
    assert net.subnets == ("TFT",) and net.info["class_names"] == INFO["class_names"]
    for images in (IMAGES, IMAGES[:1]):
        with torch.no_grad():
            expected = model(torch.from_numpy(images), subnet="TFT")
        numpy.testing.assert_allclose(net(images), expected.numpy(), rtol=1e-4, atol=1e-4)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert read_metadata(path)["subnet"] == "TFT" and read_metadata(path)["image_size"] == 16
    assert pliant.runtime.load(path).subnets == net.subnets, "the file says what it is for"


@pytest.mark.parametrize("name", [name for name, runtime in RUNTIMES.items() if runtime.switches])
def test_a_switchable_file_in_each_that_switches(model, switchable, name):
    skip_unless_installed(name)
    net = pliant.runtime.load(switchable, runtime=name, threads=1)
    for subnet in net.subnets:
        with torch.no_grad():
            expected = model(torch.from_numpy(IMAGES), subnet=subnet)
        numpy.testing.assert_allclose(net(IMAGES, subnet), expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name, runtime in RUNTIMES.items() if runtime.switches])
def test_only_the_sub_networks_that_will_run_are_loaded(switchable, name):
    skip_unless_installed(name)
    whole = pliant.runtime.load(switchable, runtime=name, threads=1)
    few = pliant.runtime.load(switchable, runtime=name, subnets=["FTF", "TTT"], threads=1)
    assert few.subnets == ("TTT", "FTF") == tuple(row["subnet"] for row in few.table)
    for subnet in few.subnets:
        numpy.testing.assert_allclose(few(IMAGES, subnet), whole(IMAGES, subnet), rtol=1e-4, atol=1e-4)
    numpy.testing.assert_array_equal(few(IMAGES), few(IMAGES, "FTF"))
    assert few.pick(gmacs=100)["subnet"] == "FTF"
    with pytest.raises(ValueError, match="no sub-network 'FFF': allowed are TTT, FTF"):
        few(IMAGES, "FFF")
    for wrong, said in {
        ("TTT", "QQQ"): "allowed are TTT, FTT",
        (): "got none, allowed are TTT",
        "TTT": "the text 'TTT'",
    }.items():
        with pytest.raises(ValueError, match=said) as failure:
            pliant.runtime.load(switchable, runtime=name, subnets=wrong)
        assert "\n" not in str(failure.value)


@pytest.mark.parametrize("mode", ["fast", "compact"])
@pytest.mark.parametrize("config", [pliant.Depth(), pliant.Width(choices=(0.5, 1.0))])
def test_openvino_compiles_no_condition_of_what_is_loaded_alone(tmp_path, config, mode):
    skip_unless_installed("openvino")
    adapted = pliant.adapt_(CifarResNet(14, shortcut="projection"), config).eval()
    path = pliant.export(adapted, tmp_path / "net.onnx", switchable=mode, image_size=16).path
    kinds: dict[str, set[str]] = {}
    for name, subnets in {"whole": None, "alone": [str(adapted.space.smallest)]}.items():
        net = pliant.runtime.load(path, runtime="openvino", subnets=subnets, threads=1)
        sessions = net.session._sessions.values() if subnets else [net.session]
        compiled = next(iter(sessions))._request.get_compiled_model()
        kinds[name] = {node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ops()}
    assert "If" in kinds["whole"] and not kinds["alone"] & {"If", "Parameter"}, kinds


@pytest.mark.slow
def test_a_file_that_takes_so_many_at_once_says_so(model, digits, tmp_path):
    skip_unless_installed("executorch")
    report = pliant.export(model, tmp_path / "net.pte", subnet="TTT", image_size=16, info=INFO)
    assert report.most == 8 and "for up to 8 3x16x16 images" in str(report)
    net = pliant.runtime.load(report.path, threads=1)
    many = numpy.random.default_rng(0).standard_normal((9, 3, 16, 16), dtype=numpy.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(many), subnet="TTT").numpy()
    numpy.testing.assert_allclose(net(many[:8]), expected[:8], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="got 9 at once, and the file takes 8 at most"):
        net(many)
    assert pliant.measure_file(report.path, digits, threads=1, rounds=1, memory=False).rows[0]["acc1"] >= 0
    fixed = pliant.export(model, tmp_path / "fixed.pte", subnet="TTT", image_size=16, batch=9).path
    numpy.testing.assert_allclose(pliant.runtime.load(fixed)(many), expected, rtol=1e-4, atol=1e-4)


def test_openvino_runs_the_largest_first_where_there_are_more_images_than_before(switchable, monkeypatch):
    skip_unless_installed("openvino")
    net = pliant.runtime.load(switchable, runtime="openvino", threads=1)
    request, ran = net.session._request, []

    class Recorded:
        def infer(self, given):
            ran.append((len(given["images"]), given["skip"].tolist()))
            return request.infer(given)

    monkeypatch.setattr(net.session, "_request", Recorded())
    largest, smallest = net.subnets[-1], net.subnets[0]
    for count in (1, 1, 4, 2, 4):
        net(numpy.repeat(IMAGES[:1], count, axis=0), smallest)
    none, all_ = ([letter == "T" for letter in subnet] for subnet in (largest, smallest))
    assert ran == [(1, none), (1, all_), (1, all_), (4, none), (4, all_), (2, all_), (4, all_)]


@pytest.mark.slow
def test_openvino_does_not_run_what_is_skipped(tmp_path):
    skip_unless_installed("openvino")
    deep = pliant.adapt_(CifarResNet(44), pliant.Depth()).eval()
    path = pliant.export(deep, tmp_path / "net.onnx", switchable="fast", runtime="openvino", image_size=32).path
    net = pliant.runtime.load(path, runtime="openvino", threads=1)
    images, times = numpy.zeros((4, 3, 32, 32), numpy.float32), {"TTT": [], "FFF": []}
    for _ in range(30):
        for subnet, taken in times.items():
            start = time.perf_counter()
            net(images, subnet)
            taken.append(time.perf_counter() - start)
    assert statistics.median(times["TTT"]) < 0.8 * statistics.median(times["FFF"]), "half of the blocks are skipped"


@pytest.mark.parametrize("name", [name for name, runtime in RUNTIMES.items() if runtime.extra])
def test_what_is_not_installed_is_named_with_its_extra(model, tmp_path, monkeypatch, name):
    monkeypatch.setitem(__import__("sys").modules, RUNTIMES[name].package, None)
    path = tmp_path / f"net{RUNTIMES[name].ending}"
    with pytest.raises(ExportError, match=rf"pip install 'pliant\[{name}\]'") as failure:
        pliant.export(model, path, runtime=name, image_size=16)
    assert "\n" not in str(failure.value) and not path.exists()


def test_a_missing_compiler_is_named(model, tmp_path, monkeypatch):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with pytest.raises(ExportError, match=r"AOTInductor needs a C\+\+ compiler, .* install g\+\+"):
        pliant.export(model, tmp_path / "net.pt2", runtime="aotinductor", image_size=16)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("net.onnx", {"runtime": "tensorrt"}, "runtime: got 'tensorrt', expected onnxruntime or openvino or"),
        ("net.onnx", {"runtime": "pytorch"}, r"PyTorch runs .pt2 files; .onnx is for onnxruntime or openvino"),
        ("net.pt2", {"switchable": "fast"}, "PyTorch runs no switchable files, which have to be ONNX"),
    ],
)
def test_what_does_not_fit_gets_one_line(model, tmp_path, path, options, message):
    with pytest.raises(ExportError, match=message) as failure:
        pliant.export(model, tmp_path / path, image_size=16, **options)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("name", [one for one in EACH if RUNTIMES[one.values[0]].quantized])
def test_int8_answers_as_float32_and_is_small(trained, digits, tmp_path, name):
    skip_unless_installed(name)
    ending = RUNTIMES[name].ending
    images = [batch for batch, _ in digits.as_trained_on(**INFO).train.batches(64)][:4]
    plain = pliant.export(trained, tmp_path / f"plain{ending}", subnet="TTT", image_size=16, info=INFO, runtime=name)
    small = pliant.export(
        trained,
        tmp_path / f"small{ending}",
        subnet="TTT",
        image_size=16,
        info=INFO | {"acc1": 99.0},
        calibrate_on=images,
        runtime=name,
    )
    assert small.size_mb < 0.4 * plain.size_mb and small.precision == "int8" and small.calibrated_on == 256
    assert small.difference <= 0.1 and "256 calibration images" in str(small)
    if ending == ".onnx":
        operators = {node.op_type for node in onnx.load(small.path).graph.node}
        assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    said = read_metadata(small.path)
    assert said["subnet"] == "TTT" and said["precision"] == "int8" and "acc1" not in said
    how = {"runtime": name, "threads": 1, "rounds": 2, "memory": False}
    table = pliant.measure_file(plain.path, digits, beside=[small.path], **how)
    assert [row["precision"] for row in table.rows] == ["float32", "int8"]
    assert table.rows[0]["acc1"] > 70 and table.rows[1]["acc1"] == pytest.approx(table.rows[0]["acc1"], abs=5)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_transformer_in_int8_answers_alone_as_among_others(tmp_path, name):
    skip_unless_installed(name)
    torch.manual_seed(0)
    options = {"img_size": 32, "patch_size": 4, "embed_dim": 64, "depth": 2, "num_heads": 2, "num_classes": 10}
    network = pliant.create_model("timm:vit_tiny_patch16_224", **options)
    torch.nn.init.normal_(network.get_submodule("head").weight)
    images = torch.randn(96, 3, 32, 32)
    how = {"image_size": 32, "calibrate_on": [images], "runtime": name, "tolerance": 0.5}
    path = pliant.export(network, tmp_path / "net.onnx", **how).path
    net = pliant.runtime.load(path, runtime=name, threads=1)
    alone = numpy.concatenate([net(one.numpy()) for one in images.split(1)])
    numpy.testing.assert_allclose(net(images.numpy()), alone, atol=1e-3)
    nodes = onnx.load(path).graph.node
    quantized = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    products = [quantized.issuperset(node.input) for node in nodes if node.op_type == "MatMul"]
    assert products.count(False) == 4, "two of attention in each of two blocks stay as they are"


def test_what_cannot_be_int8_gets_one_line(model, tmp_path):
    images = [torch.randn(8, 3, 16, 16)]
    for path, options, message in [
        ("net.onnx", {"calibrate_on": images, "switchable": "fast"}, "quantizer does not enter conditions"),
        ("net.pt2", {"calibrate_on": images}, "no int8 files for pytorch; allowed are onnxruntime .*executorch"),
        ("net.onnx", {"calibrate_on": []}, "calibrate_on: got 0 images, expected at least 1"),
        ("net.onnx", {"calibrate_on": images, "batch": 9}, "calibrate_on: got 8 images, expected at least 9"),
        ("net.onnx", {"calibrate_on": [torch.randn(1, 3, 8, 8)]}, "calibrate_on: got images of 3x8x8"),
        ("net.onnx", {"calibrate_on": [torch.randn(64, 3, 16, 16)], "tolerance": 1e-9}, "differs from eager PyTorch"),
    ]:
        with pytest.raises(ExportError, match=message) as failure:
            pliant.export(model, tmp_path / path, image_size=16, **options)
        assert "\n" not in str(failure.value)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def trained(digits):
    """A network that knows the digits a little, so that its answers mean something."""
    torch.manual_seed(0)
    network = pliant.adapt_(CifarResNet(14), pliant.Depth()).train()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for images, labels in digits.as_trained_on(**INFO).train.batches(64):
        torch.nn.functional.cross_entropy(network(images, subnet="TTT"), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    return network.eval()


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", image_size=16)


def test_a_file_is_measured_like_a_network(model, switchable, digits):
    table = pliant.measure_file(switchable, digits, threads=1, rounds=3, energy=False, memory=False)
    live = pliant.measure(model, digits.as_trained_on(**INFO), latency=False, memory=False)
    assert [row["subnet"] for row in table.rows] == [row["subnet"] for row in live.rows]
    for row, other in zip(table.rows, live.rows, strict=True):
        assert row["acc1"] == pytest.approx(other["acc1"], abs=0.3) and row["gmacs"] == other["gmacs"]
        assert row["latency_ms_p95"] >= row["latency_ms"] > 0 and row["precision"] == "float32"
        assert row["file_mb"] == pytest.approx(switchable.stat().st_size / 1e6)
    assert table.info["runtime"].startswith("ONNX Runtime") and table.info["threads"] == 1
    assert table.pick(gmacs=table.rows[0]["gmacs"])["subnet"] == "TTT"


def test_a_static_file_of_fixed_batches_beside_another(model, digits, tmp_path):
    one = pliant.export(model, tmp_path / "one.onnx", subnet="TTT", batch=7, image_size=16, info=INFO).path
    other = pliant.export(model, tmp_path / "other.onnx", subnet="TTT", batch=7, image_size=16, info=INFO).path
    table = pliant.measure_file(one, digits, beside=[other], threads=1, rounds=2, memory=False)
    assert [row["subnet"] for row in table.rows] == ["TTT", "TTT"] and table.info["batch_size"] == 7
    live = pliant.measure(model, digits.as_trained_on(**INFO), subnets=["TTT"], latency=False, memory=False)
    assert table.rows[0]["acc1"] == table.rows[1]["acc1"] == pytest.approx(live.rows[0]["acc1"], abs=0.3)


def test_files_that_cannot_be_measured_get_one_line(model, switchable, digits, tmp_path):
    plain = pliant.export(model, tmp_path / "plain.onnx", image_size=16).path
    foreign = tmp_path / "foreign.onnx"
    graph = onnx.load(plain)
    del graph.metadata_props[:]
    onnx.save(graph, foreign)
    few = load_data("digits", image_size=8)
    for path, data, message in [
        (plain, digits, "plain.onnx: does not say class_names and mean and std, without which its accuracy"),
        (foreign, None, "foreign.onnx: does not say what it takes"),
        (switchable, few, "takes images of 16 pixels, and these of digits have 8"),
    ]:
        with pytest.raises(ValueError, match=message) as failure:
            pliant.measure_file(path, data, threads=1, rounds=1)
        assert "\n" not in str(failure.value)
    seven = pliant.export(model, tmp_path / "seven.onnx", subnet="TTT", batch=7, image_size=16, info=INFO).path
    ran: list[str] = []
    with pytest.raises(ValueError, match=r"got shape \[3, 3, 16, 16\], expected \[7, 3, 16, 16\]"):
        pliant.measure_file(seven, digits, batch_size=3, rounds=1, on_progress=lambda what, *_: ran.append(what))
    assert not ran, "nothing is measured in vain"
    assert "acc1" not in pliant.measure_file(plain, threads=1, rounds=1, memory=False).rows[0]


def test_the_memory_of_a_file_is_its_weights_and_a_pass(tmp_path):
    skip_where_no_memory_is_read()
    # Far more than what a session takes besides, which is another 5 to 15 MB from one machine to the next.
    layers = (torch.nn.Flatten(), torch.nn.Linear(192, 100_000, bias=False), torch.nn.Linear(100_000, 2))
    path = pliant.export(torch.nn.Sequential(*layers), tmp_path / "net.onnx", image_size=8).path
    one, many = (pliant.measure_file(path, batch_size=batch, threads=1, rounds=1).rows[0] for batch in (1, 200))
    assert 77 < one["peak_memory_mb"] < 115, "weights of 77.6 MB, once"
    assert 79 < many["peak_memory_mb"] - one["peak_memory_mb"] < 120, "199 times 100000 values of 4 bytes"


def test_where_memory_cannot_be_read_it_is_absent_and_said(switchable, monkeypatch):
    monkeypatch.setattr("pliant.runtime.memory._STATUS", Path("/never/status"))
    table = pliant.measure_file(switchable, threads=1, rounds=1)
    assert "/never/status" in table.info["no_memory"]
    assert not any("peak_memory_mb" in row for row in table.rows)


def test_a_process_that_fails_gets_one_line(switchable):
    skip_where_no_memory_is_read()
    with pytest.raises(ValueError, match="its memory was not measured: ValueError: no sub-network 'QQQ'") as failure:
        file_memory_mb(switchable, "QQQ")
    assert "\n" not in str(failure.value)
