"""`report`: one HTML page that needs nothing else, and its charts as PNG files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from pliant.core.files import write_atomically
from pliant.measure.policy_table import PolicyTable
from pliant.report import budgets, listing, routes, sheet, words
from pliant.report.average import accuracy_over_average
from pliant.report.content import ReportError, Run
from pliant.report.curves import accuracy_curves, loss_curves
from pliant.report.gated import Gated, gate_tradeoff, routes_of_budgets, routes_of_classes
from pliant.report.png import write_png
from pliant.report.policies import Policies
from pliant.report.scatter import accuracy_over, costs_of
from pliant.report.scene import Scene
from pliant.report.shares import exit_shares
from pliant.report.sources import Source, find
from pliant.report.svg import to_svg
from pliant.report.theme import DARK, LIGHT, css_variables

__all__ = ["report"]

# Charts come in two shapes, so that their texts stay readable on a phone, where the page shows the narrow one.
_WIDE = {"width": 540.0, "plot_height": 330.0}
_NARROW = {"width": 350.0, "plot_height": 270.0}
_THEMES = {"light": LIGHT, "dark": DARK}

Pair = tuple[Scene, Scene]
"""One chart: wide and narrow."""
Charts = dict[str, list[Pair]]

# What an earlier report drew of measurements that are no longer there is taken away, by these names.
_OF_A_RUN = ("accuracy-over-macs", "accuracy-over-latency", "training")
_OF_POLICIES = ("accuracy-over-average-macs", "accuracy-over-average-latency", "exit-shares")
_OF_A_GATE = ("gate-over-macs", "gate-over-latency", "gate-budgets", "gate-shares")


def report(
    run: str | os.PathLike[str] | PolicyTable,
    *,
    baselines: Sequence[str | os.PathLike[str]] = (),
    out: str | os.PathLike[str] | None = None,
) -> Path:
    """Make a page: accuracy over computation and latency, training curves, who leaves where, the tables.

    Of a run folder it reads `table.json`, `policies.json`, or both, and what there is of `metrics.csv`,
    `recipe.yaml` and `pliant.json`. Beside the page lie its charts as `*-light.png` and `*-dark.png`; unless it is of
    a whole folder, their names begin with that of the page.

    Args:
        run: the folder of a run, a file that `pliant measure` wrote, or the policies that `measure_policies` returned.
        baselines: folders of networks that were trained on their own, to compare with.
        out: the page; none = `report.html` in the folder of the run, or a page beside the file.

    Returns:
        Where the page is.

    Raises:
        ReportError: (a ValueError) nothing that was measured, a baseline that cannot be compared, or policies in
            memory without `out`.
    """
    source = find(run, baselines)
    page = _place(source, out)
    page.parent.mkdir(parents=True, exist_ok=True)
    charts = _charts(source)
    prefix = "" if source.is_folder else f"{page.stem}-"
    for name, pairs in charts.items():
        _write_images(page.parent, prefix + name, [wide for wide, _ in pairs])
    with write_atomically(page) as temporary:
        temporary.write_text(_page(source, charts), encoding="utf-8")
    return page


def _place(source: Source, out: str | os.PathLike[str] | None) -> Path:
    if out is None:
        if source.page is None:
            raise ReportError("policies in memory have no folder: say with out= where the page goes")
        return source.page
    if Path(out).is_dir():
        return Path(out) / (source.page.name if source.page else "report.html")
    return Path(out)


def _charts(source: Source) -> Charts:
    """Draw what can be drawn, in both shapes, by the name of the image file it goes into."""
    charts: Charts = {}
    if source.run or source.is_folder:
        charts |= {name: [] for name in _OF_A_RUN}
    if source.policies or source.is_folder:
        charts |= {name: [] for name in _OF_POLICIES}
    if source.gated or source.is_folder:
        charts |= {name: [] for name in _OF_A_GATE}
    if source.run is not None:
        run, costs = source.run, costs_of(source.run.rows)
        for key, name in zip(("gmacs", "latency_ms"), _OF_A_RUN, strict=False):
            charts[name] = _both(accuracy_over, run, costs[key]) if key in costs else []
        charts["training"] = _both(accuracy_curves, run.epochs) + _both(loss_curves, run.epochs)
    if source.policies is not None:
        policies, costs = source.policies, source.policies.costs
        for key, name in zip(("gmacs", "latency_ms_mean"), _OF_POLICIES, strict=False):
            charts[name] = _both(accuracy_over_average, policies, costs[key]) if key in costs else []
        charts["exit-shares"] = _both(exit_shares, policies)
    if source.gated is not None:
        gated, costs = source.gated, source.gated.costs
        for key, name in zip(("gmacs", "latency_ms_mean"), _OF_A_GATE, strict=False):
            charts[name] = _both(gate_tradeoff, gated, costs[key]) if key in costs else []
        charts["gate-budgets"] = _both(routes_of_budgets, gated)
        charts["gate-shares"] = _both(routes_of_classes, gated)
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


def _page(source: Source, charts: Charts) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    return environment.get_template("page.html.jinja").render(
        date=date.today().isoformat(),
        light=css_variables(LIGHT),
        dark=css_variables(DARK),
        run=_parts_of_run(source.run, charts) if source.run else None,
        policies=_parts_of_policies(source.policies, charts) if source.policies else None,
        gated=_parts_of_gate(source.gated, charts) if source.gated else None,
        **_head(source),
    )


def _head(source: Source) -> dict[str, Any]:
    """What stands at the top and at the end of the page: of the first of these that there is."""
    others = [budgets.sentence(source.policies)] if source.policies else []
    others += [routes.sentence(source.gated)] if source.gated else []
    if source.run:
        return _head_of_run(source.run, others)
    if source.policies:
        return _head_of_policies(source.policies, others[1:])
    assert source.gated is not None, "there is a run, or there are policies, or there is a gate"
    return _head_of_gate(source.gated)


def _head_of_run(run: Run, others: Sequence[str]) -> dict[str, Any]:
    costs = costs_of(run.rows)
    return {
        "title": words.title(run),
        "summary": words.summary(run, costs),
        "details": " ".join(part for part in (words.details(run), *others) if part),
        "figures": words.key_figures(run, costs),
        "commands": words.commands(run),
        "next": words.next_step(run),
    }


def _head_of_policies(policies: Policies, others: Sequence[str]) -> dict[str, Any]:
    return {
        "title": budgets.title(policies),
        "summary": budgets.summary(policies),
        "details": " ".join(others),
        "figures": budgets.key_figures(policies),
        "commands": budgets.commands(policies),
        "next": "Try more budgets, and ship",
    }


def _head_of_gate(gated: Gated) -> dict[str, Any]:
    return {
        "title": routes.title(gated),
        "summary": routes.summary(gated),
        "details": "",
        "figures": routes.key_figures(gated),
        "commands": routes.commands(gated),
        "next": "Measure every width in detail, and ship",
    }


def _parts_of_run(run: Run, charts: Charts) -> dict[str, Any]:
    columns = listing.columns(run, costs_of(run.rows))
    lines = listing.lines(run, columns)
    notes = (
        words.uncertainty(run),
        words.scatter_of_latency(run.rows),
        words.left_out(run),
    )
    return {
        "notes": [note for note in notes if note],
        "tradeoffs": _figures(charts, "accuracy-over-macs", "accuracy-over-latency"),
        "training": _figures(charts, "training"),
        "columns": columns,
        "lines": lines,
        "legend": words.legend(run),
        "marks": any(mark for line in lines for _, mark in line.cells),
        "several": len(run.rows) > 1,
        "measured": listing.measured_how(run),
        "trained": listing.trained_how(run),
        "recipe": run.recipe.to_yaml() if run.recipe else "",
    }


def _parts_of_policies(policies: Policies, charts: Charts) -> dict[str, Any]:
    columns = budgets.columns(policies)
    chance = words.uncertainty_of(policies.table.info.get("images"), policies.whole["acc1"])
    return {
        "notes": [chance] if chance else [],
        "tradeoffs": _figures(charts, *_OF_POLICIES[:2]),
        "shares": _figures(charts, "exit-shares"),
        "sheet": sheet.groups(policies),
        "caption": sheet.caption(policies) if policies.table.examples else "",
        "noun": policies.noun,
        "split": words.split_name(policies.table.info),
        "shared": policies.shared,
        "unit": policies.costs["gmacs"].unit,
        "columns": columns,
        "lines": budgets.lines(policies, columns),
        "measured": budgets.measured_how(policies),
    }


def _parts_of_gate(gated: Gated, charts: Charts) -> dict[str, Any]:
    columns, info = routes.columns(gated), gated.table.info
    notes = (
        routes.how_equal(gated),
        words.uncertainty_of(info.get("images"), gated.table.shown["acc1"]),
        words.scatter_of_latency(gated.table.static),
    )
    cut = "Of all classes the ten that go narrowest, and the ten that go widest."
    return {
        "notes": [note for note in notes if note],
        "tradeoffs": _figures(charts, *_OF_A_GATE[:2]),
        "shares": _figures(charts, *_OF_A_GATE[2:]),
        "cut": "" if gated.all_classes_shown else cut,
        "sheet": routes.groups(gated),
        "caption": routes.caption(gated),
        "columns": columns,
        "lines": routes.lines(gated, columns),
        "measured": routes.measured_how(gated),
    }


def _figures(charts: Charts, *names: str) -> list[dict[str, Any]]:
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
