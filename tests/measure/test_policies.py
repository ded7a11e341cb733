"""Policies found on validation images and measured on test images."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch

import pliant
from pliant.core.fingerprint import fingerprint
from pliant.core.macs import count_gmacs, count_macs
from pliant.measure.describe import describe
from pliant.measure.policies import cumulative_gmacs, find_policies, measure_policies, usual_subnets
from pliant.measure.policy_table import PolicyTable
from pliant.models.msdnet import paper_counts
from pliant.policy.fit import budgeted_row
from pliant.policy.runner import all_logits

from .conftest import FixedData, FixedSplit


@dataclass
class Choosable(FixedSplit):
    def subset(self, rows: torch.Tensor) -> Choosable:
        return Choosable(self.images[rows], self.labels[rows])


def split(count: int, seed: int, classes: int = 10) -> Choosable:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 32, 32, generator=generator) * torch.rand(count, 1, 1, 1, generator=generator)
    return Choosable(images, torch.arange(count) % classes)


@pytest.fixture
def fixed() -> FixedData:
    return FixedData(tuple(map(str, range(10))), val=split(12, 1), test=split(9, 2))


@pytest.fixture
def exits() -> torch.nn.Module:
    torch.manual_seed(0)
    return pliant.adapt_(pliant.create_model("pliant:resnet20"), pliant.Depth(), pliant.Exits()).eval()


IMAGE = torch.randn(1, 3, 32, 32)


def test_costs_are_of_all_that_ran_before(exits, adapted):
    def macs(model, subnet, **options):
        return count_macs(lambda: model(IMAGE, subnet=subnet, **options)) / 1e9

    first, second, third = cumulative_gmacs(exits, ("exit=1", "exit=2", "exit=3"), IMAGE)
    assert first == macs(exits, "exit=1") and third == macs(exits, "exit=3", exits=True)
    assert macs(exits, "exit=2") < second < third
    assert third == pytest.approx(count_gmacs(pliant.extract(exits, "exit=3"), 32) + (16 + 32) * 10 / 1e9)
    small, full = (count_gmacs(pliant.extract(adapted, subnet), 32) for subnet in ("TTT", "FFF"))
    assert cumulative_gmacs(adapted, ("TTT", "FFF"), IMAGE) == pytest.approx([small, small + full])
    mixed = cumulative_gmacs(exits, ("depth=TFF,exit=1", "exit=1", "exit=3"), IMAGE)
    # The policy does not ask the second exit, and so its classifier does not run.
    to_third = third - 32 * 10 / 1e9
    assert mixed == pytest.approx([macs(exits, "depth=TFF,exit=1"), mixed[0] + first, mixed[0] + to_third])


def test_the_exits_of_an_msdnet_have_the_costs_of_its_papers_beside_what_runs(fixed):
    plain = pliant.create_model("pliant:msdnet_cifar10_k4")
    printed = [gmacs for gmacs, _ in paper_counts(plain, 32)]
    model = pliant.adapt_(plain, pliant.Exits()).eval()
    for table in (describe(model, 32), pliant.measure(model, image_size=32, latency=False, memory=False)):
        assert [row["paper_gmacs"] for row in table.rows] == printed
        assert all(row["gmacs"] < row["paper_gmacs"] for row in table.rows)
    table = measure_policies(model, fixed, budgets=3, rounds=0)
    assert [row["paper_gmacs"] for row in table.anytime] == printed
    for row in table.rows:
        expected = sum(share * gmacs for share, gmacs in zip(row["shares"].values(), printed, strict=True))
        assert row["paper_gmacs"] == pytest.approx(expected) and row["gmacs"] < row["paper_gmacs"]


def test_a_network_whose_papers_count_what_runs_has_no_costs_of_its_papers(exits, fixed):
    assert not any("paper_gmacs" in row for row in describe(exits, 32).rows)
    table = measure_policies(exits, fixed, budgets=2, rounds=0)
    assert not any("paper_gmacs" in row for row in [*table.rows, *table.anytime])
    without_earlier_exits = pliant.create_model("pliant:msdnet_cifar10_k4").truncated(3)
    assert not any(
        "paper_gmacs" in row for row in describe(pliant.adapt_(without_earlier_exits, pliant.Exits()), 32).rows
    )


def test_the_usual_sub_networks_are_all_exits_or_the_two_trained_depths(exits, adapted):
    assert usual_subnets(exits) == ["depth=FFF,exit=1", "depth=FFF,exit=2", "depth=FFF,exit=3"]
    assert usual_subnets(adapted) == ["TTT", "FFF"]
    with pytest.raises(ValueError, match="this CifarResNet has no sub-networks; adapt it first"):
        usual_subnets(pliant.create_model("pliant:resnet20"))


def test_policies_are_found_for_a_model(exits):
    val = split(30, 1)
    policies = find_policies(exits, val.images, val.labels, budgets=3, batch_size=7, calibrate=True)
    costs = cumulative_gmacs(exits, usual_subnets(exits), IMAGE)
    assert [policy.budget for policy in policies] == [costs[0], (costs[0] + costs[2]) / 2, costs[2]]
    logits = all_logits(exits, val.images, usual_subnets(exits))
    for policy in policies:
        policy.check(exits=3, num_classes=10, fingerprint=fingerprint(exits))
        assert budgeted_row(policy, logits, val.labels)["gmacs"] == pytest.approx(policy.expected_cost)
        assert len(policy.temperatures) == 3
    assert all(share > 0 for share in policies[1].expected_shares)


def test_validation_images_decide_and_test_images_are_reported_on(exits, fixed, tmp_path):
    told = []
    table = measure_policies(
        exits, fixed, budgets=3, rounds=4, warmup=1, threads=1, on_progress=lambda *progress: told.append(progress)
    )
    logits = all_logits(exits, fixed.test.images, usual_subnets(exits))
    again = find_policies(exits, fixed.val.images, fixed.val.labels, budgets=3)
    assert table.policies == again
    for row, policy in zip(table.rows, table.policies, strict=True):
        expected = budgeted_row(policy, logits, fixed.test.labels)
        assert expected.items() <= row.items()
        assert 0 < row["latency_ms_mean"] and 0 < row["latency_ms"] <= row["latency_ms_p95"]
    assert [row["subnet"] for row in table.anytime] == usual_subnets(exits)
    assert table.anytime[0]["acc1"] == table.rows[0]["acc1"]
    assert (table.info["images"], table.info["found_on_images"], table.info["rounds"]) == (9, 12, 4)
    assert table.info["fingerprint"] == fingerprint(exits)
    assert ("validation", 12, 12) in told and ("test", 9, 9) in told and ("latency", 5, 5) in told
    table.save(tmp_path / "policies.json")
    assert PolicyTable.load(tmp_path / "policies.json") == table


def test_what_was_not_timed_is_absent(adapted, fixed):
    table = measure_policies(adapted, fixed, budgets=1, rounds=0)
    assert set(table.rows[0]) == {"budget", "gmacs", "acc1", "shares"}
    assert "rounds" not in table.info


def test_bad_input_is_refused(exits, fixed, tmp_path):
    with pytest.raises(ValueError, match="threads=0: allowed are whole numbers from 1 on"):
        measure_policies(exits, fixed, threads=0)
    with pytest.raises(ValueError, match="rounds=-1: allowed are whole numbers from 0 on"):
        measure_policies(exits, fixed, rounds=-1)
    with pytest.raises(ValueError, match="fixed has no test part: thresholds are found on the validation part"):
        measure_policies(exits, replace(fixed, test=None))
    with pytest.raises(ValueError, match="the network has 10 outputs, but the data has 9 classes"):
        measure_policies(exits, replace(fixed, class_names=fixed.class_names[:9]))
    for images in (fixed.val.images[:0], fixed.val.images[:1]):
        with pytest.raises(ValueError, match=r"validation set is empty|all 1 validation images are of class 0"):
            find_policies(exits, images, fixed.val.labels[: len(images)])
    with pytest.raises(ValueError, match="the validation set is empty"):
        measure_policies(exits, replace(fixed, val=split(0, 1)))
    with pytest.raises(ValueError, match=r"budget 0\.001 cannot be met: depth=FFF,exit=1 alone costs 0\.0145983"):
        find_policies(exits, fixed.val.images, fixed.val.labels, budgets=[0.001])
    with pytest.raises(ValueError, match="no sub-network 'exit=4'"):
        find_policies(exits, fixed.val.images, fixed.val.labels, subnets=("exit=1", "exit=4"))
    with pytest.raises(ValueError, match="no measure of confidence 'hope'"):
        find_policies(exits, fixed.val.images, fixed.val.labels, measure="hope")
    with pytest.raises(ValueError, match="budget nan"):
        find_policies(exits, fixed.val.images, fixed.val.labels, budgets=[math.nan])
    for text in ("[]", "{", '{"version": 2}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=r"bad\.json: "):
            PolicyTable.load(tmp_path / "bad.json")
