"""`pliant train`: train a network as a recipe says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from pliant.cli.show import note

__all__ = ["train"]


def train(
    recipe: Annotated[Path, typer.Option(help="A recipe, such as recipes/cifar10_resnet20.yaml.")],
    out: Annotated[Path, typer.Option(help="The run folder to write.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="digits, cifar10, cifar100, or a folder or archive of images; default: what the recipe says."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    start_from: Annotated[
        str | None, typer.Option(help="A run folder or a file of weights to start from; default: what the recipe says.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: all.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Train for so many epochs instead, in the first phase.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Change a field of the recipe, such as optimizer.lr=0.05 or then.0.epochs=5; repeatable.",
        ),
    ] = None,
) -> None:
    """Train a network as a recipe says; --resume goes on after an interruption."""
    from pliant.measure.latency import using_threads
    from pliant.train.engine import train as run_training
    from pliant.train.recipe import Recipe

    tree = changed(Recipe.load(recipe).to_dict(), set_ or [])
    if data is not None:
        tree["data"]["source"] = data
    if start_from is not None:
        tree["model"]["start_from"] = start_from
    if epochs is not None:
        tree["epochs"] = epochs
    wanted = Recipe.from_dict(tree)
    try:
        with using_threads(threads):
            run_training(wanted, out=out, resume=resume, device=device)
    except KeyboardInterrupt:
        note(f"Interrupted. The same command with --resume goes on from the last epoch that is in {out}.")
        raise
    if os.environ.get("RANK", "0") == "0":
        by_gate = " --policy gate" if wanted.phases[-1].learns == "gates" else ""
        note(f"The network is in {out}. Next: pliant measure {out}{by_gate}")


def changed(tree: dict[str, Any], changes: list[str]) -> dict[str, Any]:
    """Return a recipe's tree with `FIELD=VALUE` texts applied; values are read as YAML.

    Raises:
        ValueError: a text without `=`, or a field inside of what has no fields. Unknown fields are
            left to the recipe, which knows its own.
    """
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals or not path.strip():
            raise ValueError(f"--set {change}: expected FIELD=VALUE, such as optimizer.lr=0.05")
        *parents, last = path.strip().split(".")
        fields: Any = tree
        for parent in parents:
            place = _place(fields, parent, change)
            if fields[place] is None:
                fields[place] = {}
            fields = fields[place]
            if not isinstance(fields, dict | list):
                raise ValueError(f"--set {change}: {parent} has no fields")
        fields[_place(fields, last, change)] = _value(text, path)
    return tree


def _place(fields: dict[str, Any] | list[Any], name: str, change: str) -> Any:
    """Return under which key or number of `fields` something is or comes: `then.0.epochs` is of the second phase."""
    if isinstance(fields, dict):
        fields.setdefault(name, None)
        return name
    if not name.isdecimal() or int(name) >= len(fields):
        allowed = f"a number below {len(fields)}" if fields else "nothing, as this list is empty"
        raise ValueError(f"--set {change}: got {name!r}, expected {allowed}")
    return int(name)


def _value(text: str, path: str) -> Any:
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"--set {path}={text}: the value is not YAML") from None
    if isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 takes 1e-4, without a point, for a text
        except ValueError:
            return value
    return value
