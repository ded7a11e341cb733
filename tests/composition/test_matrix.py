"""Whatever people do to a model: each sub-network is right, or one line says why not, as docs/composition.md has it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _load_matrix() -> ModuleType:
    # Not an import: pytest runs these files without their folder on the path.
    spec = importlib.util.spec_from_file_location("matrix", Path(__file__).with_name("matrix.py"))
    assert spec is not None and spec.loader is not None
    sys.modules["matrix"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MATRIX = _load_matrix()
WRITTEN = json.loads((Path(__file__).parents[2] / "results" / "composition.json").read_text())["operations"]


def cases() -> Iterator[Any]:
    for operation in MATRIX.OPERATIONS:
        for family in operation.families:
            slow = operation.slow or family != operation.families[0]
            for axis in MATRIX.AXES:
                for moment in MATRIX.MOMENTS:
                    name = f"{operation.name}, {family}, {axis}, {moment}"
                    marks = [pytest.mark.slow] if slow else []
                    yield pytest.param(operation, family, axis, moment, id=name, marks=marks)


@pytest.mark.parametrize(("operation", "family", "axis", "moment"), list(cases()))
def test_each_sub_network_is_right_or_refused_as_written(operation, family, axis, moment):
    written = WRITTEN[operation.name][axis][moment][family]
    found = MATRIX.outcome(operation, family, axis, moment)
    # What is refused stays refused: else the page is out of date (benchmarks/composition.py).
    assert (found == MATRIX.RIGHT) == (written == MATRIX.RIGHT), found


def test_the_page_has_every_operation():
    assert list(WRITTEN) == [operation.name for operation in MATRIX.OPERATIONS]
