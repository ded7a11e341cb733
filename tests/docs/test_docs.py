"""What the documents say works: Python blocks run, commands parse, links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import click
import pytest
import typer

from pliant.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)[^)]*\)")


def blocks(page: Path, language: str) -> list[str]:
    return [text for name, text in BLOCK.findall(page.read_text(encoding="utf-8")) if name == language]


def commands() -> list[str]:
    lines = [line for page in PAGES for block in blocks(page, "shell") for line in block.splitlines()]
    return sorted({line.split("#")[0].strip() for line in lines if line.startswith("pliant ")})


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(blocks(page, "python"), start=1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)


def test_there_are_commands_to_parse() -> None:
    assert len(commands()) > 5


@pytest.mark.parametrize("command", commands())
def test_commands_parse(command: str) -> None:
    _, name, *arguments = shlex.split(command)
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group) or hasattr(group, "commands")
    group.commands[name].make_context(name, arguments)  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "index"], ids=lambda page: page.stem)
def test_every_page_can_be_found_from_the_index(page: Path) -> None:
    assert page.name in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


def test_the_fields_of_recipes_are_those_of_the_library() -> None:
    spec = importlib.util.spec_from_file_location("recipe_fields", ROOT / "docs" / "recipe_fields.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = script.PAGE.read_text(encoding="utf-8")
    assert script.page(text) == text, "out of date: run python docs/recipe_fields.py"
    assert "`warmup_epochs`" in text
