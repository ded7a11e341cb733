"""One recipe of two phases: the network learns, then its classifiers alone (IMTA)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pliant
from pliant.data import ImageData
from pliant.train.engine import train
from pliant.train.recipe import Recipe

Tiny = Callable[..., Recipe]
EXITS = {"depth": None, "exits": {}}
COLLABORATING = {"depth": None, "exits": {"collaboration": "concatenate"}}
SECOND = {
    "epochs": 2,
    "adapt": COLLABORATING,
    "plan": {"name": "one-for-all"},
    "learns": "classifiers",
    "teacher": "frozen",
}


@pytest.fixture
def two(tiny: Tiny) -> Tiny:
    """Make a recipe of two phases, as the paper has them."""

    def make(second: dict[str, Any] | None = None, **changes: Any) -> Recipe:
        first = {"adapt": EXITS, "plan": {"name": "exits"}}
        return tiny(**first | changes, then=[SECOND | (second or {})])

    return make


def learns(name: str) -> bool:
    return ".linear." in name or name.startswith("fc.")


def test_the_second_phase_goes_on_from_the_first(two: Tiny, images: ImageData, tmp_path: Path) -> None:
    said: list[str] = []
    result = train(two(), data=images, out=tmp_path / "run", log=said.append)
    assert [line.partition("  ")[0] for line in said] == [
        f"phase {phase} of 2, epoch {epoch}/2" for phase in (1, 2) for epoch in (1, 2)
    ]
    assert result.out == tmp_path / "run"
    assert Recipe.load(result.out / "recipe.yaml") == two()
    assert Recipe.load(result.out / "phase-1" / "recipe.yaml") == two().phases[0]
    first, last = pliant.load(result.out / "phase-1").state_dict(), pliant.load(result.out).state_dict()
    for name, tensor in first.items():
        assert torch.equal(last[name], tensor) != learns(name), name
    assert set(last) - set(first) == {name for name in last if ".collaboration." in name or "fc.coll" in name}
