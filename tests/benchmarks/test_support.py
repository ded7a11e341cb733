"""The support table says what was tried and what happened, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def support() -> ModuleType:
    path = list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))  # the script imports its neighbours
    try:
        spec = importlib.util.spec_from_file_location("support", BENCHMARKS / "support.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path[:] = path


class Answer:
    """What a try would send to the process that started it."""

    def send(self, outcome: dict[str, Any]) -> None:
        self.outcome = outcome


def outcome_of(support: ModuleType, name: str, key: str) -> dict[str, Any]:
    answer = Answer()
    support.in_child(name, key, answer)
    return answer.outcome


@pytest.mark.parametrize("key", ["adapt", "extract", "train", "checkpoint"])
def test_what_works_is_found_to_work(support, key) -> None:
    assert outcome_of(support, "pliant:resnet20", key) == {"works": True}


def test_a_difference_is_no_success(support, monkeypatch) -> None:
    real = support.pliant.extract
    monkeypatch.setattr(support.pliant, "extract", lambda model, subnet: real(model, "largest"), raising=False)
    outcome = outcome_of(support, "pliant:resnet20", "extract")
    assert not outcome["works"]
    assert outcome["note"].startswith("differs by")


def test_a_refusal_is_its_first_line_without_folders_of_the_machine(support, monkeypatch) -> None:
    def refuse(*args: Any) -> None:
        place = "/".join(["", "home", "someone", "lib", "x.py"])
        raise RuntimeError(f"\nno such operator in {place}\nmore of it")

    monkeypatch.setitem(support.TRIES, "adapt", ("adapt", refuse))
    note = "RuntimeError: no such operator in x.py"
    assert outcome_of(support, "pliant:resnet20", "adapt") == {"works": False, "note": note}


def test_the_page_numbers_its_notes_once(support) -> None:
    notes: list[str] = []
    refused, conditional = {"works": False, "note": "too large"}, {"works": True, "note": "one image"}
    cells = [support.cell(outcome, notes) for outcome in (None, {"works": True}, refused, conditional, refused)]
    assert cells == ["-", "yes", "no (1)", "yes (2)", "no (1)"]
    assert notes == ["too large", "one image"]


def test_the_page_is_that_of_the_results(support) -> None:
    document = json.loads(support.RESULTS.read_text(encoding="utf-8"))
    assert set(document["tries"]) == {family.name for family in support.FAMILIES}
    assert all(set(tries) == set(support.TRIES) for tries in document["tries"].values())
    assert support.PAGE.read_text(encoding="utf-8") == support.page(document), "run python benchmarks/support.py --page"


def test_trying_a_part_again_keeps_the_rest(support, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(support, "RESULTS", tmp_path / "support.json")
    monkeypatch.setattr(support, "PAGE", tmp_path / "support.md")
    monkeypatch.setattr(support, "attempt", lambda name, key, limit_s: {"works": True, "note": key, "seconds": 1.0})
    for arguments in (["--names", "resnet18", "--tries", "adapt", "onnx"], ["--tries", "adapt", "--again"]):
        monkeypatch.setattr(sys, "argv", [str(BENCHMARKS / "support.py"), *arguments])
        support.main()
    tries = json.loads(support.RESULTS.read_text(encoding="utf-8"))["tries"]
    assert set(tries["torchvision:resnet18"]) == {"adapt", "onnx"}
