"""The structure of the paper's networks: what benchmarks/table1.py counts is what it must be, within 1 %."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

# GMACs of super-net and base-net; parameters in millions of the adaptive network and of the extracted base-net. None
# = not asked for.
EXPECTED = {
    "ResNet-50": (4.09, 2.56, 25.58, None),
    "ResNet-101": (7.80, 4.53, None, 27.17),
    "MobileNetV2, five flags": (0.300, 0.205, 3.53, 2.93),
    "MobileNetV2, four flags": (0.300, 0.231, 3.53, 2.94),
    "ViT-B/16": (17.58, 11.76, 86.59, 58.22),
    "ViT-B/32": (4.41, 2.98, None, 59.87),
    "Swin-T [1,1,3,2]": (4.49, 2.69, 28.30, 22.40),
    "Swin-T [1,1,3,1]": (4.49, 2.34, 28.30, 15.31),
}


@pytest.fixture(scope="module")
def table1() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))  # the script imports its neighbour
    try:
        spec = importlib.util.spec_from_file_location("table1", BENCHMARKS / "table1.py")
        assert spec is not None and spec.loader is not None
        sys.modules["table1"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_every_network_of_the_table_is_expected(table1) -> None:
    assert [network.title for network in table1.NETWORKS] == list(EXPECTED)


@pytest.mark.parametrize("title", EXPECTED)
def test_macs_and_parameters(table1, title) -> None:
    row = table1.count(next(network for network in table1.NETWORKS if network.title == title))
    given = [row[key] for key in ("super_gmacs", "base_gmacs", "adaptive_params_m", "base_params_m")]
    for value, expected in zip(given, EXPECTED[title], strict=True):
        assert expected is None or value == pytest.approx(expected, rel=0.01)
