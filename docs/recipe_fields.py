"""Writes the tables of docs/recipes.md from the recipe's own classes, so that they cannot differ.

Run: python docs/recipe_fields.py
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from pathlib import Path

import yaml

from pliant.core.config import Config
from pliant.train.recipe import Recipe

PAGE = Path(__file__).with_name("recipes.md")
MARKED = re.compile(r"(<!-- fields -->\n).*?(<!-- end of fields -->)", re.DOTALL)


def configs(root: type[Config]) -> dict[str, type[Config]]:
    """All configs inside of `root`, each once, by the path of the first field that holds it."""
    found: dict[str, type[Config]] = {"": root}
    for name, hint in typing.get_type_hints(root).items():
        for kind in (hint, *typing.get_args(hint)):
            if isinstance(kind, type) and issubclass(kind, Config):
                inside = {f"{name}.{inner}".rstrip("."): config for inner, config in configs(kind).items()}
                found |= {path: config for path, config in inside.items() if config not in found.values()}
    return found


def described(config: type[Config]) -> dict[str, str]:
    """The text for each field, from the section Attributes of the class."""
    section = (inspect.getdoc(config) or "").partition("Attributes:\n")[2]
    return {
        name: " ".join(text.split())
        for name, text in re.findall(r"^ {4}(\w+): (.*?)(?=^ {4}\w|\Z)", section, re.M | re.S)
    }


def default(field: dataclasses.Field[typing.Any]) -> str:
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        return "needed"
    if isinstance(value, Config):
        return "see below"
    return f"`{yaml.safe_dump(value, default_flow_style=True).split('...')[0].strip()}`"


def table(path: str, config: type[Config]) -> str:
    texts = described(config)
    lines = [f"### `{path}`" if path else "### The recipe", "", "| field | default | |", "|---|---|---|"]
    for field in dataclasses.fields(config):
        lines.append(f"| `{field.name}` | {default(field)} | {texts[field.name]} |")
    return "\n".join(lines)


def page(text: str) -> str:
    tables = "\n\n".join(table(path, config) for path, config in configs(Recipe).items())
    return MARKED.sub(lambda found: f"{found[1]}{tables}\n{found[2]}", text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
