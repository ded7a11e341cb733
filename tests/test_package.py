"""Contracts 7 and 8. The package itself: what importing it costs, and that its names stay what they are."""

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import pliant

HEAVY = ("torch", "torchvision", "timm", "lightning", "torchmetrics", "onnx", "matplotlib", "rich", "sklearn")


def loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return set(out.split())


def test_importing_pliant_loads_no_library() -> None:
    assert not loaded_after("import pliant").intersection(HEAVY)


def test_importing_the_core_loads_torch_alone() -> None:
    loaded = loaded_after("from pliant.core.subnet import SubNet, SubNetSpace; from pliant.core.plan import Plan")
    assert not loaded.intersection(set(HEAVY) - {"torch"})


@pytest.mark.parametrize("name", pliant.__all__)
def test_every_public_name_resolves_to_something_that_is_not_a_module(name: str) -> None:
    assert not isinstance(getattr(pliant, name), ModuleType)
    assert name in dir(pliant)


def test_functions_stay_in_sight_of_the_rooms_of_their_name() -> None:
    from pliant.export import export
    from pliant.extract import extract
    from pliant.measure import measure
    from pliant.measure.table import Table
    from pliant.train.engine import train

    assert pliant.measure is measure
    assert pliant.export is export
    assert pliant.extract is extract
    assert pliant.train is train
    assert pliant.Table is Table


def test_functions_win_over_rooms_that_were_imported_first() -> None:
    code = "from pliant.measure.table import Table; import pliant; print(callable(pliant.measure))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "True"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        pliant.nothing_of_this_name  # noqa: B018


def test_type_checkers_and_python_see_the_same_names() -> None:
    tree = ast.parse(Path(pliant.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imported == pliant._HOMES
    assert sorted(imported) == pliant.__all__
