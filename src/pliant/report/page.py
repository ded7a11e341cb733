"""`report`: one HTML page that needs nothing else, and its charts as PNG files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from pliant.checkpoint import write_atomically
from pliant.report import listing, words
from pliant.report.content import Run, read_run
from pliant.report.curves import accuracy_curves, loss_curves
from pliant.report.png import write_png
from pliant.report.scatter import accuracy_over, costs_of
from pliant.report.scene import Scene
from pliant.report.svg import to_svg
from pliant.report.theme import DARK, LIGHT, css_variables

__all__ = ["report"]

# Charts come in two shapes, so that their texts stay readable on a phone, where the page shows the narrow one.
_WIDE = {"width": 540.0, "plot_height": 330.0}
_NARROW = {"width": 350.0, "plot_height": 270.0}
_THEMES = {"light": LIGHT, "dark": DARK}

Draw = Callable[..., Scene | None]


def report(
    run_dir: str | os.PathLike[str],
    *,
    baselines: Sequence[str | os.PathLike[str]] = (),
    out: str | os.PathLike[str] | None = None,
) -> Path:
    """Make a page of a run: accuracy over computation and latency, training curves, the table.

    Reads `table.json` and what there is of `metrics.csv`, `recipe.yaml` and `pliant.json`. Beside the
    page lie its charts as `*-light.png` and `*-dark.png`.

    Args:
        run_dir: the folder of a run.
        baselines: folders of networks that were trained on their own, to compare with.
        out: the page; none = `report.html` in the folder of the run.

    Returns:
        Where the page is.

    Raises:
        ReportError: (a ValueError) no table.json, or a baseline that cannot be compared.
    """
    run = read_run(run_dir, baselines)
    out = Path(out) if out is not None else run.folder / "report.html"
    if out.is_dir():
        out = out / "report.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    groups = _charts(run)
    for name, charts in groups.items():
        _write_images(out.parent, name, [draw(**_WIDE) for draw in charts])
    with write_atomically(out) as temporary:
        temporary.write_text(_page(run, groups), encoding="utf-8")
    return out


def _charts(run: Run) -> dict[str, list[Draw]]:
    """What can be drawn: for each image file the charts in it, as functions of their size."""
    costs = costs_of(run.rows)
    groups: dict[str, list[Draw]] = {
        f"accuracy-over-{name}": [lambda cost=costs[key], **size: accuracy_over(run, cost, **size)]
        for key, name in (("gmacs", "macs"), ("latency_ms", "latency"))
        if key in costs
    }
    groups["training"] = [
        lambda **size: accuracy_curves(run.epochs, **size),
        lambda **size: loss_curves(run.epochs, **size),
    ]
    drawn = {name: [draw for draw in charts if draw(**_WIDE) is not None] for name, charts in groups.items()}
    return {name: charts for name, charts in drawn.items() if charts}


def _write_images(folder: Path, name: str, scenes: Sequence[Scene | None]) -> None:
    for variant, theme in _THEMES.items():
        with write_atomically(folder / f"{name}-{variant}.png") as temporary:
            write_png(temporary, [scene for scene in scenes if scene is not None], theme)


def _page(run: Run, groups: dict[str, list[Draw]]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    costs = costs_of(run.rows)
    columns = listing.columns(run, costs)
    lines = listing.lines(run, columns)
    return environment.get_template("page.html.jinja").render(
        title=words.title(run),
        date=date.today().isoformat(),
        light=css_variables(LIGHT),
        dark=css_variables(DARK),
        summary=words.summary(run, costs),
        details=words.details(run),
        figures=words.key_figures(run, costs),
        uncertainty=words.uncertainty(run),
        tradeoffs=_figures(groups, "accuracy-over"),
        training=_figures(groups, "training"),
        columns=columns,
        lines=lines,
        several=len(run.rows) > 1,
        marks=any(mark for line in lines for _, mark in line.cells),
        other_timing=any(not alone.same_timing for alone in run.alone),
        measured=listing.measured_how(run),
        trained=listing.trained_how(run),
        recipe=run.recipe.to_yaml() if run.recipe else "",
        folder=run.folder.resolve().name,
        example=run.front("gmacs")[:1] or [run.smallest["subnet"]],
    )


def _figures(groups: dict[str, list[Draw]], prefix: str) -> list[dict[str, Any]]:
    figures = []
    for name, charts in groups.items():
        if not name.startswith(prefix):
            continue
        for number, draw in enumerate(charts):
            wide, narrow = draw(**_WIDE), draw(**_NARROW)
            assert wide is not None and narrow is not None
            ids = f"{name}-{number}"
            figures.append(
                {"title": wide.title, "wide": to_svg(wide, f"{ids}-wide"), "narrow": to_svg(narrow, f"{ids}-narrow")}
            )
    return figures


def _code(text: str) -> Any:
    """Set what stands between backticks as code, everything else as text."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
