"""How the commands show rows: a table for people, or plain JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["headline", "note", "progress_bar", "show"]


def show(rows: Iterable[Mapping[str, Any]], *, as_json: bool, title: str = "", hide: Iterable[str] = ()) -> None:
    """Print rows to stdout.

    Args:
        rows: one mapping a sub-network; a key that was not measured is absent.
        as_json: print a JSON list of all rows with all keys, and nothing else.
        title: a line above the table for people.
        hide: keys that the table for people leaves out.
    """
    if as_json:
        print(json.dumps([dict(row) for row in rows], indent=2))
        return
    from pliant.measure.table import Table

    table = Table([{key: value for key, value in row.items() if key not in set(hide)} for row in rows])
    print(f"{title}\n{table.text()}" if title else table.text())


def headline(info: Mapping[str, Any]) -> str:
    """Say in one line what was measured, where and how."""
    threads = info["threads"]
    where = f"{info['device']}, {info['cpu']}, {threads} thread{'s' if threads > 1 else ''}"
    count = info.get("recalibrated_on")
    anew = f"; norm statistics of untrained ones from {count} training images" if count else ""
    inputs = info.get("inputs", "px images")
    inputs = f"{info['image_size']} px" if inputs.endswith("px images") else inputs
    return f"{info['model']}, {inputs}, batch {info['batch_size']}, {info['dtype']}; {where}{anew}"


def note(text: str) -> None:
    """Print a line for people to stderr, where it mixes with no result."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on stderr, if that is a terminal; yields what is to be told the progress.

    It is called with what is being done, how much of it is done, and of how much.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def update(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield update
