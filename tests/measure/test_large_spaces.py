"""Commands that go through all sub-networks, on a model with more than can be gone through."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

import pliant
from pliant.core.sequence import MOST_LISTED
from pliant.export.verify import ExportError
from pliant.measure import describe as description
from pliant.measure.candidates import chosen_subnets
from pliant.measure.describe import describe
from pliant.publish.readme import _what

COUNT = 2**32


def test_adapting_and_running_one_of_so_many_takes_no_time(huge_source):
    network, x = huge_source.create(), torch.randn(1, 3, 32, 32)
    start = time.perf_counter()
    model = pliant.adapt_(network, pliant.Depth(groups=32)).eval()
    with torch.no_grad():
        some = [model(x, subnet=subnet) for subnet in ("T" * 32, "smallest", model.subnets[0])]
        plain = pliant.extract(model, "TF" * 16)
        between = model(x, subnet="TF" * 16), plain(x)
    # A list of so many takes hours and all memory: the limit is for the busiest of machines.
    assert time.perf_counter() - start < 10
    assert len(model.subnets) == COUNT and torch.equal(some[0], some[1]) and torch.equal(some[0], some[2])
    assert torch.equal(*between) and not torch.equal(between[0], some[0])


def test_measure_refuses_to_go_through_all_and_says_how_many_there_are(huge):
    message = (
        rf"subnets: got all {COUNT} sub-networks of this AdaptiveVisionTransformer, expected at most {MOST_LISTED}; "
    )
    with pytest.raises(ValueError, match=message + r"name some: subnets=.*evenly_spaced.*--subnet smallest") as error:
        pliant.measure(huge, image_size=32)
    assert "\n" not in str(error.value)
    names = ["largest", "FT" * 16, "smallest", "largest"]
    table = pliant.measure(huge, image_size=32, subnets=names, latency=False, memory=False)
    assert [row["subnet"] for row in table.rows] == ["T" * 32, "FT" * 16, "F" * 32]
    with pytest.raises(ValueError, match="subnets: got no sub-network to measure, expected some of SubNets") as error:
        pliant.measure(huge, image_size=32, subnets=[])
    assert len(str(error.value)) < 400


def test_those_that_are_named_come_in_order_each_once(huge):
    some = huge.subnets.evenly_spaced(20)
    assert chosen_subnets(huge, [*map(str, some[::-1]), *some[5:15]]) == list(some)


def test_description_says_how_many_and_describes_some_from_end_to_end(huge, monkeypatch):
    monkeypatch.setattr(description, "FEW", 3)  # each of 8 takes a second
    table = describe(huge, 32)
    names = [row["subnet"] for row in table.rows]
    assert table.info["num_subnets"] == COUNT
    assert names == [str(subnet) for subnet in huge.subnets.evenly_spaced(3)]
    assert (names[0], names[-1]) == ("T" * 32, "F" * 32)
    gmacs = [row["gmacs"] for row in table.rows]
    assert gmacs == sorted(gmacs) and gmacs[0] < gmacs[-1]
    assert [row["subnet"] for row in describe(huge, 32, subnets=["largest"]).rows] == ["F" * 32]


def test_a_model_of_a_few_is_described_in_full(adapted, monkeypatch):
    assert len(describe(adapted, 32).rows) == describe(adapted, 32).info["num_subnets"] == 8
    monkeypatch.setattr(description, "MOST_DESCRIBED", 8)
    monkeypatch.setattr(description, "FEW", 3)
    assert len(describe(adapted, 32).rows) == 8
    monkeypatch.setattr(description, "MOST_DESCRIBED", 7)
    assert [row["subnet"] for row in describe(adapted, 32).rows] == ["TTT", "TTF", "FFF"]


def test_a_switchable_file_of_so_many_is_refused_and_one_of_them_is_exported(huge, tmp_path):
    with pytest.raises(ExportError, match=rf"switchable: got all {COUNT} sub-networks .*; export one with subnet="):
        pliant.export(huge, tmp_path / "net.onnx", switchable="fast", image_size=32)
    assert not list(tmp_path.iterdir())


def test_saved_and_loaded_and_told_of(huge, huge_source, tmp_path: Path):
    folder = pliant.save(huge, tmp_path / "run", source=huge_source)
    loaded, x = pliant.load(folder), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(x, subnet="FT" * 16), huge(x, subnet="FT" * 16))
    assert loaded.subnets == huge.subnets
    card = json.loads((folder / "pliant.json").read_text())
    assert f"{COUNT} sub-networks in one set of weights" in _what(card, loaded)
