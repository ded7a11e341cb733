"""`report`: one HTML page that needs nothing else, and its charts as PNG files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from pliant.core.files import write_atomically
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

Pair = tuple[Scene, Scene]
"""One chart: wide and narrow."""


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
    charts = _charts(run)
    for name, pairs in charts.items():
        _write_images(out.parent, name, [wide for wide, _ in pairs])
    with write_atomically(out) as temporary:
        temporary.write_text(_page(run, charts), encoding="utf-8")
    return out


def _charts(run: Run) -> dict[str, list[Pair]]:
    """Draw what can be drawn, in both shapes, by the name of the image file it goes into."""
    costs = costs_of(run.rows)
    charts: dict[str, list[Pair]] = {}
    for key, name in (("gmacs", "accuracy-over-macs"), ("latency_ms", "accuracy-over-latency")):
        charts[name] = _both(accuracy_over, run, costs[key]) if key in costs else []
    charts["training"] = _both(accuracy_curves, run.epochs) + _both(loss_curves, run.epochs)
    return charts


def _both(draw: Callable[..., Scene | None], *what: Any) -> list[Pair]:
    wide, narrow = draw(*what, **_WIDE), draw(*what, **_NARROW)
    return [] if wide is None or narrow is None else [(wide, narrow)]


def _write_images(folder: Path, name: str, scenes: Sequence[Scene]) -> None:
    for variant, theme in _THEMES.items():
        path = folder / f"{name}-{variant}.png"
        if not scenes:
            # What an earlier report drew of measurements that are no longer there would mislead.
            path.unlink(missing_ok=True)
            continue
        with write_atomically(path) as temporary:
            write_png(temporary, scenes, theme)


def _page(run: Run, charts: dict[str, list[Pair]]) -> str:
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
        notes=[note for note in (words.uncertainty(run), words.scatter_of_latency(run), words.left_out(run)) if note],
        tradeoffs=_figures(charts, "accuracy-over-macs", "accuracy-over-latency"),
        training=_figures(charts, "training"),
        columns=columns,
        lines=lines,
        several=len(run.rows) > 1,
        marks=any(mark for line in lines for _, mark in line.cells),
        measured=listing.measured_how(run),
        trained=listing.trained_how(run),
        recipe=run.recipe.to_yaml() if run.recipe else "",
        commands=words.commands(run),
    )


def _figures(charts: dict[str, list[Pair]], *names: str) -> list[dict[str, Any]]:
    """What the template needs of the charts of some image files."""
    return [
        {
            "title": wide.title,
            "wide": to_svg(wide, f"{name}-{number}-wide"),
            "narrow": to_svg(narrow, f"{name}-{number}-narrow"),
        }
        for name in names
        for number, (wide, narrow) in enumerate(charts[name])
    ]


def _code(text: str) -> Any:
    """Set what stands between backticks as code, everything else as text; keep a number and its % on one line."""
    from markupsafe import Markup, escape

    safe = str(escape(text)).replace(" %", "\N{NO-BREAK SPACE}%")
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", safe))
