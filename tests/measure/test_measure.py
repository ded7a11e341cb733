import copy

import pytest
import torch
from torch import nn

import pliant
from pliant.core.fingerprint import fingerprint
from pliant.measure.describe import describe
from pliant.measure.run import measure

QUICK = {"rounds": 2, "warmup": 1}
KEYS = [
    "subnet",
    "gmacs",
    "params_m",
    "acc1",
    "acc5",
    "latency_ms",
    "latency_ms_p75",
    "latency_ms_p90",
    "latency_ms_p95",
    "latency_ms_p99",
    "peak_memory_mb",
    "operators",
]


def test_every_sub_network_gets_every_quantity(adapted, data):
    table = measure(adapted, data, **QUICK)
    assert table.columns == KEYS
    assert [row["subnet"] for row in table.rows] == [str(subnet) for subnet in adapted.subnets]
    assert all(list(row) == KEYS for row in table.rows)
    smallest, largest = table.rows[0], table.rows[-1]
    for key in ("gmacs", "params_m", "operators", "peak_memory_mb"):
        assert 0 < smallest[key] < largest[key]
    assert all(0 < row["latency_ms"] <= row["latency_ms_p95"] for row in table.rows)


def test_accuracy_is_that_of_the_switched_model(adapted, data):
    table = measure(adapted, data, latency=False, memory=False, eval_batch_size=5)
    for row in table.rows:
        with torch.no_grad():
            answers = adapted(data.test.images, subnet=row["subnet"]).argmax(1)
        assert row["acc1"] == pytest.approx(100 * (answers == data.test.labels).float().mean().item())


def test_the_sub_networks_of_the_fixture_answer_differently(adapted, data):
    """Otherwise the test above could not tell one sub-network from another."""
    answers = {tuple(adapted(data.test.images, subnet=subnet).argmax(1).tolist()) for subnet in adapted.subnets}
    assert len(answers) > 1


def test_the_table_says_how_it_came_about(adapted, data):
    info = measure(adapted, data, batch_size=2, threads=1, **QUICK).info
    expected = {
        "model": "pliant:resnet20",
        "data": "fixed",
        "split": "test",
        "images": 12,
        "image_size": 32,
        "batch_size": 2,
        "threads": 1,
        "rounds": 2,
        "latency_of": "extracted",
        "dtype": "float32",
        "device": "cpu",
        "fingerprint": fingerprint(adapted),
    }
    assert expected.items() <= info.items()
    assert info["versions"]["torch"] == str(torch.__version__)
    assert info["cpu"] and info["date"].startswith("20")


def test_rounds_bound_the_percentiles_that_they_can(adapted):
    table = measure(adapted, image_size=16, subnets=["TTT"], memory=False, rounds=40)
    (row,) = table.rows
    assert row["latency_ms_low"] <= row["latency_ms"] <= row["latency_ms_high"]
    assert row["latency_ms_p90"] <= row["latency_ms_p90_high"]
    assert "latency_ms_p95_high" not in row
    assert "latency_ms_p95_high" in measure(adapted, image_size=16, subnets=["TTT"], memory=False).rows[0]


def test_as_many_rounds_as_fit_the_time(adapted):
    options = {"image_size": 16, "subnets": ["TTT"], "memory": False}
    table = measure(adapted, budget_seconds=4, **options)
    fewest = measure(adapted, budget_seconds=0.001, **options)
    assert table.info["budget_seconds"] == 4
    assert table.info["rounds"] > fewest.info["rounds"] == 6
    assert {"latency_ms_low", "latency_ms_high"} < set(fewest.rows[0])


def test_without_test_images_validation_images_serve(adapted, data):
    data.test = None
    info = measure(adapted, data, latency=False, memory=False).info
    assert (info["split"], info["images"]) == ("val", 7)


def test_the_validation_split_can_be_asked_for(adapted, data):
    assert measure(adapted, data, split="val", latency=False, memory=False).info["images"] == 7


def test_what_is_not_asked_for_is_absent(adapted):
    table = measure(adapted, image_size=32, latency=False, memory=False)
    assert table.columns == ["subnet", "gmacs", "params_m", "operators"]
    assert "split" not in table.info and "rounds" not in table.info


def test_some_sub_networks_in_the_order_of_the_model(adapted):
    table = measure(adapted, image_size=32, subnets=["largest", "TTT", "TTT"], latency=False, memory=False)
    assert [row["subnet"] for row in table.rows] == ["TTT", "FFF"]


def test_a_plain_network_is_one_row(adapted, data):
    plain = pliant.extract(adapted, "TTT")
    table = measure(plain, data, name="alone", **QUICK)
    assert [row["subnet"] for row in table.rows] == ["alone"]
    assert list(table.rows[0]) == KEYS
    base = measure(adapted, data, subnets=["TTT"], latency=False).rows[0]
    for key in ("gmacs", "params_m", "acc1", "operators", "peak_memory_mb"):
        assert table.rows[0][key] == base[key]


def test_through_the_switched_model_memory_holds_all_weights(adapted):
    extracted = measure(adapted, image_size=32, subnets=["TTT"], **QUICK)
    switched = measure(adapted, image_size=32, subnets=["TTT"], through="switched", **QUICK)
    assert switched.info["latency_of"] == "switched"
    difference = switched.info["total_params_m"] - switched.rows[0]["params_m"]
    assert switched.rows[0]["peak_memory_mb"] - extracted.rows[0]["peak_memory_mb"] >= 4 * difference


@pytest.mark.parametrize("norms", ["statistics", "shared"])
def test_narrow_networks_are_measured_as_they_ship(norms):
    model = pliant.create_model("pliant:resnet20", num_classes=10, shortcut="projection")
    pliant.adapt_(model, pliant.Width(choices=(0.25, 0.5, 1.0), norms=norms), pliant.Depth())
    chosen = ["width=0.25,depth=TTT", "width=0.25,depth=FFF", "width=1.0,depth=FFF"]
    table = measure(model, image_size=16, subnets=chosen, **QUICK)
    assert len(table.rows) == len(chosen)
    for row in table.rows:
        alone = measure(pliant.extract(model, row["subnet"]), image_size=16, **QUICK).rows[0]
        assert row["peak_memory_mb"] == alone["peak_memory_mb"], "not that of the wide weights"


def test_the_model_stays_as_it_was(adapted, data):
    model = copy.deepcopy(adapted)
    model.train()
    model.layer1.eval()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    threads = torch.get_num_threads()
    for dtype in ("float32", "bfloat16"):
        measure(model, data, subnets=["TTT", "FFF"], threads=2, dtype=dtype, **QUICK)
    assert [module.training for module in model.modules()] == modes
    assert torch.get_num_threads() == threads
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_another_type_is_measured_on_a_copy(adapted, data):
    table = measure(adapted, data, subnets=["TTT"], dtype="bfloat16", **QUICK)
    assert table.info["dtype"] == "bfloat16"
    full = measure(adapted, data, subnets=["TTT"], latency=False)
    assert table.rows[0]["peak_memory_mb"] < 0.6 * full.rows[0]["peak_memory_mb"]
    assert table.info["fingerprint"] == full.info["fingerprint"]


def test_progress_is_reported(adapted, data):
    seen = []
    measure(adapted, data, on_progress=lambda *step: seen.append(step), **QUICK)
    assert {what for what, _, _ in seen} == {"MACs", "accuracy", "latency", "memory"}
    last = {what: (done, total) for what, done, total in seen}
    assert all(done == total for done, total in last.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "image_size is needed"),
        ({"image_size": 32, "subnets": ["TTX"]}, "'TTX'"),
        ({"image_size": 32, "subnets": []}, "subnets: got no sub-network to measure, expected some of .*TTT"),
        ({"image_size": 32, "batch_size": 0}, "batch_size=0"),
        ({"image_size": 32, "threads": 0}, "threads=0"),
        ({"image_size": 32, "rounds": 0}, "rounds=0"),
        ({"image_size": 32, "budget_seconds": 0}, "budget_seconds=0: allowed is a number of seconds above 0"),
        ({"image_size": 32, "budget_seconds": 3, "rounds": 2}, "rounds=2 and budget_seconds=3: give one of them"),
        ({"image_size": 32, "dtype": "int8"}, "dtype=int8: allowed are float32"),
        ({"image_size": 32, "dtype": torch.int8}, "dtype=torch.int8: allowed are float32"),
        ({"image_size": 32, "device": "toaster"}, "device 'toaster' cannot be used here"),
        ({"image_size": 32, "device": "meta"}, "device 'meta' cannot be used here"),
        ({"image_size": 32, "through": "magic"}, "through='magic': allowed are 'extracted' and 'switched'"),
    ],
)
def test_bad_options_are_refused_in_one_line(adapted, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        measure(adapted, **options)
    assert "\n" not in str(caught.value)


def test_bad_splits_and_plain_networks_with_sub_networks_are_refused(adapted, data):
    with pytest.raises(ValueError, match="split='train': allowed are 'test' and 'val'"):
        measure(adapted, data, split="train")
    with pytest.raises(ValueError, match="has no sub-networks; adapt it first"):
        measure(pliant.extract(adapted, "TTT"), data, subnets=["TTT"])
    with pytest.raises(ValueError, match="has no parameters"):
        measure(nn.ReLU(), data)
    data.class_names = data.class_names[:7]
    with pytest.raises(ValueError, match="10 outputs, but the data has 7 classes"):
        measure(adapted, data)


def test_describe_tells_the_published_numbers_of_resnet50():
    with torch.device("meta"):
        model = pliant.create_model("torchvision:resnet50")
    table = describe(pliant.adapt_(model, pliant.Depth()), 224)
    rows = {row["subnet"]: row for row in table.rows}
    assert len(rows) == 16
    assert (table.rows[0]["subnet"], table.rows[-1]["subnet"]) == ("TTTT", "FFFF")
    assert rows["FFFF"]["gmacs"] == pytest.approx(4.09, rel=0.01)
    assert rows["TTTT"]["gmacs"] == pytest.approx(2.56, rel=0.01)
    assert rows["FFFF"]["params_m"] == pytest.approx(25.557032)
    assert rows["TTTT"]["params_m"] == pytest.approx(17.11, rel=0.001)
    assert table.info["total_params_m"] == pytest.approx(25.58, rel=0.001)
    assert table.info["model"] == "torchvision:resnet50"
    assert table.columns == ["subnet", "gmacs", "params_m"]


def test_describe_of_a_plain_network_is_one_row():
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten())
    table = describe(network, 4)
    assert table.rows == [{"subnet": "Sequential", "gmacs": 96 / 1e9, "params_m": 8 / 1e6}]


def test_grey_images_are_measured_too():
    model = pliant.adapt_(pliant.create_model("pliant:resnet20", in_channels=1), pliant.Depth())
    grey = measure(model, image_size=16, subnets=["TTT"], **QUICK).rows[0]
    colour = measure(
        pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Depth()), image_size=16, subnets=["TTT"], **QUICK
    ).rows[0]
    assert colour["gmacs"] - grey["gmacs"] == pytest.approx(2 * 16 * 9 * 16 * 16 / 1e9)


def test_fingerprints_tell_networks_apart(adapted):
    own = fingerprint(adapted)
    other = copy.deepcopy(adapted)
    assert fingerprint(other.to(memory_format=torch.channels_last)) == own
    with torch.no_grad():
        next(other.parameters())[0, 0, 0, 0] += 1
    assert fingerprint(other) != own
    assert fingerprint(pliant.extract(adapted, "FFF")) != own


@pytest.mark.gpu
def test_on_cuda(adapted, data):
    table = measure(adapted, data, device="cuda", dtype="float16", **QUICK)
    assert list(table.rows[0]) == KEYS
    assert table.info["device"].startswith("cuda:0 (")
