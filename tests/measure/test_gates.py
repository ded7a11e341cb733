"""A gate on test images: what it chooses, what that costs, and the width that is as accurate."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

import pliant
from pliant.core.macs import count_gmacs, count_macs
from pliant.measure.gate_table import GateTable, equal_accuracy
from pliant.measure.gates import budget_gate_, measure_gate, route_gmacs
from pliant.width.gates import gate_of

from .conftest import FixedData, FixedSplit


@dataclass
class Choosable(FixedSplit):
    def subset(self, rows: torch.Tensor) -> Choosable:
        return Choosable(self.images[rows], self.labels[rows])


def split(count: int = 30) -> Choosable:
    """Ever brighter images, of three classes in turn."""
    images = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return Choosable(images * torch.linspace(0.1, 4, count).view(-1, 1, 1, 1), torch.arange(count) % 3)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A network whose gate sends these images different ways."""
    torch.manual_seed(0)
    network = pliant.create_model("pliant:resnet20", num_classes=3, shortcut="projection")
    pliant.adapt_(network, pliant.Width(choices=(0.5, 0.75, 1.0), gate=pliant.Gate()))
    with torch.no_grad():
        for subnet in network.train().subnets:  # norms as after a training, so that what an image is makes a difference
            network(split().images, subnet=subnet)
        mean = nn.functional.normalize(network.eval().seen_by_gate(split().images)[1].mean(0), dim=0)
        choose = gate_of(network).choose
        choose.weight -= torch.outer(choose.weight @ mean, mean)
    return network


@pytest.fixture(scope="module")
def data() -> FixedData:
    return FixedData(("none", "one", "two"), val=split(24), test=split())


@pytest.fixture(scope="module")
def table(model, data) -> GateTable:
    return measure_gate(model, data, budgets=2, rounds=4, warmup=1, threads=1, eval_batch_size=8)


def test_shares_accuracy_and_classes_are_those_of_predict(model, data, table):
    logits, places = pliant.predict(model, data.test.images, policy="gate")
    routes, right = [str(route) for route in model.routes], logits.argmax(1) == data.test.labels
    assert len(places.unique()) > 1, "the test needs images that go different ways"
    shares = places.bincount(minlength=3) / 30
    assert list(table.gated["shares"]) == table.info["routes"] == routes
    assert list(table.gated["shares"].values()) == pytest.approx(shares.tolist())
    assert table.gated["acc1"] == pytest.approx(100 * right.float().mean().item())
    assert [row["label"] for row in table.classes] == ["none", "one", "two"]
    for label, row in enumerate(table.classes):
        own = data.test.labels == label
        assert row["images"] == 10 and row["acc1"] == pytest.approx(100 * right[own].float().mean().item())
        assert list(row["shares"].values()) == pytest.approx((places[own].bincount(minlength=3) / 10).tolist())


def test_costs_are_those_of_the_routes_and_the_gate(model, data, table):
    image = data.test.images[:1]
    costs = route_gmacs(model, image)
    for place, route in enumerate(model.routes):
        ran = count_macs(lambda route=route: model(image, subnet=route)) + gate_of(model).choose.weight.numel()
        assert costs[place] == ran / 1e9
    taken = [int(pliant.predict(model, one[None], policy="gate")[1]) for one in data.test.images]
    assert table.gated["gmacs"] == pytest.approx(sum(costs[place] for place in taken) / 30)


def test_every_width_alone_is_measured_on_the_same_images(model, data, table):
    assert [row["subnet"] for row in table.static] == [str(subnet) for subnet in model.subnets]
    for row in table.static:
        network = pliant.extract(model, row["subnet"])
        right = network(data.test.images).argmax(1) == data.test.labels
        assert row["acc1"] == pytest.approx(100 * right.float().mean().item())
        assert row["gmacs"] == count_gmacs(network, 32)
    for row in table.rows:
        assert 0 < row["latency_ms"] <= row["latency_ms_p95"] and row["latency_ms_mean"] > 0
    assert table.info["rounds"] == 4 and table.info["threads"] == 1 and table.info["images"] == 30


def test_examples_are_the_first_images_of_each_route(model, data, table):
    _, places = pliant.predict(model, data.test.images, policy="gate")
    for place, route in enumerate(table.info["routes"]):
        indices = (places == place).nonzero().flatten()[:8].tolist()
        assert [one["index"] for one in table.examples if one["subnet"] == route] == indices
    assert {"label", "predicted", "certainty", "png"} < set(table.examples[0])


def test_where_a_gate_sends_all_one_way_the_middle_budget_tells_of_classes_and_images(model, data, table) -> None:
    assert "shown_budget" not in table.info and table.shown == table.gated
    narrow = deepcopy(model)
    gate_of(narrow).offsets.copy_(torch.tensor([100.0, 0.0, 0.0]))
    found = measure_gate(narrow, data, budgets=3, rounds=0)
    middle = found.budgets[1]
    assert max(found.gated["shares"].values()) == 1 > max(middle["shares"].values())
    assert found.info["shown_budget"] == middle["budget"] and found.shown == middle
    taken = {route for route, share in middle["shares"].items() if share}
    assert {one["subnet"] for one in found.examples} == taken
    together = {route: sum(10 * row["shares"][route] for row in found.classes) / 30 for route in middle["shares"]}
    assert together == pytest.approx(middle["shares"])
    assert measure_gate(narrow, data, budgets=0, rounds=0).shown["shares"] == found.gated["shares"]


def test_it_is_saved_and_loaded(table, tmp_path):
    table.save(tmp_path / "gate.json")
    assert GateTable.load(tmp_path / "gate.json") == table
    for text, said in (("[]", "expected a JSON object"), ("{}", "expected gated, static"), ('{"version": 9}', "newer")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=rf"bad\.json: .*{said}"):
            GateTable.load(tmp_path / "bad.json")


def test_what_was_not_timed_is_absent(model, data):
    table = measure_gate(model, data, budgets=0, rounds=0)
    assert all("latency_ms" not in row for row in table.rows) and "rounds" not in table.info
    assert table.budgets == [] and "found_on" not in table.info
    assert table.gated["equal_accuracy"] is None or "latency_ratio" not in table.gated["equal_accuracy"]


def test_with_a_budget_the_gate_is_what_budget_gate_makes_of_it(model, data, table) -> None:
    costs = route_gmacs(model, data.test.images[:1])
    assert [row["budget"] for row in table.budgets] == pytest.approx(
        [costs[0] + (costs[-1] - costs[0]) * part for part in (1 / 3, 2 / 3)]
    )
    assert table.info["found_on"] == "val" and table.info["found_on_images"] == 24
    for row in table.budgets:
        spending = deepcopy(model)
        found = budget_gate_(spending, [images for images, _ in data.val.batches(7)], row["budget"])
        assert found["offsets"] == row["offsets"] and found["gmacs"] <= row["budget"]
        _, taken = pliant.predict(spending, data.val.images, policy="gate")
        assert sum(costs[place] for place in taken) / 24 == pytest.approx(found["gmacs"])
        logits, places = pliant.predict(spending, data.test.images, policy="gate")
        assert row["acc1"] == pytest.approx(100 * (logits.argmax(1) == data.test.labels).float().mean().item())
        assert list(row["shares"].values()) == pytest.approx((places.bincount(minlength=3) / 30).tolist())
        assert row["gmacs"] == pytest.approx(sum(costs[place] for place in places) / 30)
    assert table.budgets[0]["gmacs"] < table.budgets[1]["gmacs"]
    assert not gate_of(model).offsets.any(), "measuring leaves the model as it was"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_budget_is_spent_in_any_type_as_it_was_found(model, data, dtype) -> None:
    costs, spending = route_gmacs(model, data.test.images[:1]), deepcopy(model).to(dtype)
    for share in (place / 20 for place in range(1, 20)):
        found = budget_gate_(spending, [data.val.images], costs[0] + share * (costs[-1] - costs[0]))
        _, taken = pliant.predict(spending, data.val.images.to(dtype), policy="gate")
        assert list(found["shares"].values()) == pytest.approx((taken.bincount(minlength=3) / 24).tolist())
        kept = deepcopy(spending).float()
        assert torch.equal(gate_of(kept).offsets, gate_of(spending).offsets)


def test_a_budget_is_part_of_the_weights(model, data, tmp_path) -> None:
    costs, spending = route_gmacs(model, data.test.images[:1]), deepcopy(model)
    budget_gate_(spending, [data.val.images], costs[-1])
    assert {*pliant.predict(spending, data.test.images, policy="gate")[1].tolist()} == {2}
    pliant.save(spending, tmp_path)
    assert torch.equal(gate_of(pliant.load(tmp_path)).offsets, gate_of(spending).offsets)
    spent = measure_gate(spending, data, budgets=[costs[0]], rounds=0)
    assert list(spent.gated["shares"].values()) == [0, 0, 1] and list(spent.budgets[0]["shares"].values()) == [1, 0, 0]


def test_budgets_that_cannot_be(model, data) -> None:
    least = route_gmacs(model, data.test.images[:1])[0]
    for call in (
        lambda: budget_gate_(model, [data.val.images], 0.9 * least),
        lambda: measure_gate(model, data, budgets=[0.9 * least]),
    ):
        with pytest.raises(ValueError, match=f"cannot be met: width=0.5 alone costs {least:g}"):
            call()
    with pytest.raises(ValueError, match="no images"):
        budget_gate_(model, [], 1.0)
    with pytest.raises(ValueError, match="got a batch that is a tuple, expected images alone"):
        budget_gate_(model, data.val.batches(8), 1.0)
    with pytest.raises(ValueError, match="budget 'a' is no number"):
        budget_gate_(model, [data.val.images], "a")
    with pytest.raises(ValueError, match="has no gate"):
        budget_gate_(pliant.create_model("pliant:resnet20"), [data.val.images], 1.0)
    empty = FixedData(data.class_names, val=Choosable(torch.zeros(0, 3, 32, 32), torch.zeros(0).long()), test=split())
    with pytest.raises(ValueError, match="has no validation part"):
        measure_gate(model, empty, rounds=0)


def row(subnet: str, gmacs: float, acc1: float, latency_ms_mean: float = 1.0) -> dict:
    return {"subnet": subnet, "gmacs": gmacs, "acc1": acc1, "latency_ms_mean": latency_ms_mean}


WIDTHS = [row("a", 1, 80, 2), row("b", 2, 90, 6), row("worse", 3, 85, 7), row("c", 4, 92, 10)]


def test_the_width_of_equal_accuracy_lies_between_its_neighbours():
    found = equal_accuracy(row("gate", 1.2, 85, 2), WIDTHS)
    assert found == {
        "between": ["a", "b"],
        "share": 0.5,
        "gmacs": 1.5,
        "gmacs_ratio": pytest.approx(0.8),
        "latency_ms_mean": 4,
        "latency_ratio": 0.5,
    }
    exactly = equal_accuracy(row("gate", 4, 90), WIDTHS)
    assert exactly and (exactly["between"], exactly["share"], exactly["gmacs_ratio"]) == (["a", "b"], 1, 2)


def test_widths_that_a_coin_between_two_others_beats_are_left_out():
    # Halfway between a and c a coin is right for 85 % and costs 2, which b costs too and is right for 82 %.
    widths = [row("a", 1, 80, 1), row("b", 2, 82, 2), row("c", 3, 90, 5), row("d", 4, 89, 6)]
    found = equal_accuracy(row("gate", 1.8, 85, 3), widths)
    assert found and found["between"] == ["a", "c"] and found["gmacs_ratio"] == pytest.approx(0.9)
    assert GateTable(gated={}, static=widths, classes=[], info={}).front == [widths[0], widths[2]]
    even = [row(name, cost, 80 + cost / 10, 1) for name, cost in (("a", 0.1), ("b", 0.2), ("c", 0.3))]
    assert GateTable(gated={}, static=even, classes=[], info={}).front == even


def test_beyond_all_widths_there_is_none_and_below_them_the_cheapest():
    assert equal_accuracy(row("gate", 1, 92.1), WIDTHS) is None
    found = equal_accuracy(row("gate", 3, 70, 3), WIDTHS)
    assert found and (found["between"], found["gmacs_ratio"], found["latency_ratio"]) == (["a", "a"], 3, 1.5)


def test_what_cannot_be_measured_is_refused(model, data):
    plain = pliant.adapt_(pliant.create_model("pliant:resnet20", num_classes=3), pliant.Depth())
    with pytest.raises(ValueError, match=r"this AdaptiveCifarResNet has no gate; adapt it with pliant\.Width"):
        measure_gate(plain, data)
    with pytest.raises(ValueError, match="fixed has no test part"):
        measure_gate(model, replace(data, test=None))
    with pytest.raises(ValueError, match="the network has 3 outputs, but the data has 2 classes"):
        measure_gate(model, replace(data, class_names=("none", "one")))
    with pytest.raises(ValueError, match="threads=0: allowed are whole numbers from 1 on"):
        measure_gate(model, data, threads=0)
