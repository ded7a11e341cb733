"""Write the tables of README.md and docs/results.md from results/*.json; nobody types a figure.

    python benchmarks/tables.py

A page says where a table goes with a pair of comments that name the file in results/: `<!-- results: cifar10 -->` and
`<!-- end of results -->`. Of a study it can name the trainings to show: `<!-- results: cifar10, super base adn -->`.
What was not measured is said to be missing. The `note` of a file, such as what has changed since, stands below its
table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "composition.md")
PLAIN, RECALIBRATED = "test_acc1", "test_acc1_recalibrated"
MARKED = re.compile(r"(<!-- results: ([\w-]+)(?:, ([\w -]+?))? -->\n).*?(<!-- end of results -->)", re.DOTALL)


def page(text: str, results: Path = ROOT / "results") -> str:
    """Return the text of a page with its tables made anew."""

    def made(found: re.Match[str]) -> str:
        wanted = found[3].split() if found[3] else None
        return f"{found[1]}{tables(results / f'{found[2]}.json', wanted)}\n{found[4]}"

    return MARKED.sub(made, text)


def tables(path: Path, wanted: Sequence[str] | None = None) -> str:
    if not path.exists():
        return f"`results/{path.name}` is not there: not measured yet."
    document = json.loads(path.read_text(encoding="utf-8"))
    if "runs" in document:
        runs = {name: run for name, run in document["runs"].items() if wanted is None or name in wanted}
        parts = [study(runs, document.get("recipe"))]
    elif "exits" in document:
        parts = list(exits(document["exits"], document["recipe"]))
    elif "gates" in document:
        parts = list(gates(document["gates"], document["recipe"]))
    elif "structure" in document:
        parts = [structure(document["structure"])]
    elif "networks" in document:
        parts = list(switchable(document))
    elif "operations" in document:
        parts = [operations(document["operations"])]
    elif "promises" in document:
        parts = list(promises(document))
    else:
        parts = list(anything(document))
    notes = [document["note"]] if "note" in document else []
    return "\n\n".join([*parts, *notes, source(path, document["provenance"])])


def operations(found: Mapping[str, Any]) -> str:
    """One line an operation, one column an axis and a moment; refusals are numbered and quoted below."""
    columns = [(axis, moment) for axis in ("depth", "exits", "width") for moment in ("before", "after")]
    quoted: list[str] = []
    lines = [f"| | {' | '.join(f'{axis}, {moment}' for axis, moment in columns)} |", "|---" * 7 + "|"]
    for name, by_axis in found.items():
        cells = [_cell(by_axis[axis][moment], quoted) for axis, moment in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    notes = [f"{number}. `{text}`" for number, text in enumerate(quoted, start=1)]
    return "\n".join([*lines, "", "What is refused, and how, of the first network that was tried:", "", *notes])


def _cell(by_family: Mapping[str, str], quoted: list[str]) -> str:
    """`right`, or the number of the refusal; where families differ, of each."""
    told = {}
    for family, outcome in by_family.items():
        pattern = re.sub(r"'[^']*'|\b[A-Z]\w+", "", outcome)
        known = next((text for text in quoted if re.sub(r"'[^']*'|\b[A-Z]\w+", "", text) == pattern), None)
        if outcome != "right" and known is None:
            quoted.append(known := outcome)
        told[family] = "right" if known is None else f"refused ({quoted.index(known) + 1})"
    if len(set(told.values())) == 1:
        return next(iter(told.values()))
    return "; ".join(f"{family}: {what}" for family, what in told.items())


def study(runs: Mapping[str, Any], recipe: str | None = None) -> str:
    """One line a sub-network, one column a training; networks trained on their own share a column.

    A training whose sub-networks have other accuracies with norm statistics taken anew has a second column for them.
    """
    alone = {name: run for name, run in runs.items() if len(run["subnets"]) == 1}
    together = dict(columns({name: run for name, run in runs.items() if name not in alone}))
    gmacs = {key: row["gmacs"] for run in runs.values() for key, row in run["subnets"].items()}
    lines = []
    for subnet in sorted(gmacs, key=lambda name: gmacs[name]):
        own = [accuracy(run["subnets"][subnet]) for run in alone.values() if subnet in run["subnets"]]
        others = [accuracy(rows[subnet], figure) for rows, figure in together.values()]
        lines.append([subnet, f"{gmacs[subnet]:.4f}", *(own or ["-"] if alone else []), *others])
    heads = ["sub-network", "GMACs", *(["trained individually"] if alone else []), *together]
    how = {f"seeds {', '.join(map(str, run['seeds']))}; {run['epochs']} epochs" for run in runs.values()}
    if len(how) == 1:
        said = how.pop()
    else:
        said = "; ".join(
            f"{name}: seeds {', '.join(map(str, run['seeds']))}, {run['epochs']} epochs" for name, run in runs.items()
        )
    said = f"`{recipe}`; {said}" if recipe else said
    anew = ""
    if any(figure == RECALIBRATED for _, figure in together.values()):
        anew = (
            " Recalibrated: sub-networks that were not trained have norm statistics of their own, from training images "
            "(`pliant measure --recalibrate`, `pliant export --recalibrate`)."
        )
    return f"{markdown(heads, lines)}\n\nTest accuracy in %, mean ± standard deviation over seeds ({said}).{anew}"


def columns(runs: Mapping[str, Any]) -> Iterable[tuple[str, tuple[Mapping[str, Any], str]]]:
    """The headings of trainings, and for each its sub-networks and which of their figures it shows."""
    for name, run in runs.items():
        rows = run["subnets"]
        yield f"`{name}`", (rows, PLAIN)
        known = [row for row in rows.values() if RECALIBRATED in row]
        if any(accuracy(row, RECALIBRATED) != accuracy(row, PLAIN) for row in known):
            yield f"`{name}`, recalibrated", (rows, RECALIBRATED)


def accuracy(row: Mapping[str, float], figure: str = PLAIN) -> str:
    if figure not in row:
        return "-"
    spread = f" ± {row[f'{figure}_std']:.2f}" if f"{figure}_std" in row else ""
    return f"{row[figure]:.2f}{spread}"


def exits(runs: Mapping[str, Any], recipe: str) -> Iterable[str]:
    """Accuracy of every exit alone, one line a training; then one line a budget, what it really cost in brackets."""
    names = list(dict.fromkeys(row["subnet"] for run in runs.values() for row in run["anytime"]))
    lines = []
    for name, run in runs.items():
        found = {row["subnet"]: spread(row) for row in run["anytime"]}
        lines.append([f"`{name}`", *(found.get(exit_, "-") for exit_ in names)])
    yield markdown(["", *names], lines)
    yield "Test accuracy in %, mean ± standard deviation over seeds, if one classifier answers all images."
    rows = zip(*(run["budgeted"] for run in runs.values()), strict=True)
    lines = [
        [str(number), *(f"{spread(row)} ({row['gmacs'] * 1e3:.1f})" for row in same)]
        for number, same in enumerate(rows, start=1)
    ]
    yield markdown(["budget", *(f"`{name}`" for name in runs)], lines)
    how = "; ".join(
        f"`{name}`: seeds {', '.join(map(str, run['seeds']))}"
        + (f", {' + '.join(map(str, run['epochs']))} epochs" if run["epochs"] else "")
        for name, run in runs.items()
    )
    yield (
        "Budgeted batches: test accuracy in %, and in brackets the average computation of a test image in 10⁶ "
        f"multiply-accumulates. Thresholds come from validation images. (`{recipe}`; {how})"
    )


def gates(runs: Mapping[str, Any], recipe: str) -> Iterable[str]:
    """Of every training one line a width, and one line a gate, with the width of equal accuracy beside it."""
    for name, run in runs.items():
        rows = [(row["subnet"], row) for row in run["widths"]]
        rows += [(f"gate, ≤ {row['budget'] * 1e3:.1f}" if "budget" in row else "gate", row) for row in run["gates"]]
        lines = [[called, f"{row['gmacs'] * 1e3:.2f}", spread(row), *chosen(row)] for called, row in rows]
        heads = [f"`{name}`", "10⁶ MACs", "test accuracy %", "shares of the routes %", "MACs over a width", "latency"]
        yield markdown(heads, lines)
    how = "; ".join(
        f"`{name}`: seeds {', '.join(map(str, run['seeds']))}, {' + '.join(map(str, run['epochs']))} epochs, "
        f"latency of {', '.join(map(str, run['timed'])) or 'none'}"
        for name, run in runs.items()
    )
    yield (
        "Test accuracy in %, mean ± standard deviation over seeds. The gate as it was trained, and with budgets of 10⁶ "
        "MACs for an average image, found on validation images. The last columns: what an image costs on average, "
        "over the static width of equal accuracy, which lies between two widths or is the cheapest; - where no width "
        f"is as accurate. (`{recipe}`; {how})"
    )


def chosen(row: Mapping[str, Any]) -> list[str]:
    """Where a gate sends the images, and what that costs over a width; empty for a width."""
    if "shares" not in row:
        return [""] * 3
    equal = row["equal_accuracy"] or {}
    ratios = [f"{equal[key]:.3f}" if key in equal else "-" for key in ("gmacs_ratio", "latency_ratio")]
    return [" / ".join(f"{100 * share:.0f}" for share in row["shares"].values()), *ratios]


def spread(row: Mapping[str, float]) -> str:
    """The accuracy of a row, with its standard deviation if there is one."""
    return f"{row['acc1']:.2f}" + (f" ± {row['acc1_std']:.2f}" if "acc1_std" in row else "")


def structure(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a network, the paper's figure behind ours in brackets, and what is to be said of the paper's."""
    figures = {
        "super_gmacs": "super-net GMACs",
        "base_gmacs": "base-net GMACs",
        "adaptive_params_m": "adaptive params M",
        "super_params_m": "super-net params M",
        "base_params_m": "base-net params M",
    }
    lines = []
    for row in rows:
        kept = zip(row["mandatory_blocks"], row["skippable_blocks"], strict=True)
        blocks = ", ".join(f"{mandatory}+{skippable}" for mandatory, skippable in kept)
        lines.append([row["network"], blocks, *(beside_the_paper(row, figure) for figure in figures)])
    notes = [f"- {row['network']}: {row['note']}" for row in rows if "note" in row]
    heads = ["network", "blocks, mandatory+skippable", *figures.values()]
    return "\n\n".join([markdown(heads, lines), "In brackets: the paper's Table 1.", "\n".join(notes)])


def switchable(document: Mapping[str, Any]) -> Iterable[str]:
    """A line for each network, runtime, mode and way of loading; what is above its limit stands in bold."""
    limits, lines = document["limits"], []
    for row in document["networks"]:
        for kind in ("fast", "compact", "fast_two", "compact_two"):
            if f"{kind}_memory" not in row:
                continue
            mode, _, two = kind.partition("_")
            narrow = f"{mode}_size_{row['model'].partition(':')[2]}"
            line = [
                within(row[f"{kind}_{role}_over_static"], limits[f"{mode}_over_static"]) for role in ("base", "super")
            ]
            line += [within(row[f"{kind}_in_turn_over_alone"], limits["in_turn_over_alone"])]
            size = within(row[f"{mode}_size"], limits.get(narrow, limits[f"{mode}_size"]))
            line += ["" if row["axis"] == "width" and mode == "fast" else size, f"{row[f'{kind}_memory']:.2f}"]
            line += [f"{row[f'{kind}_difference']:.0e}", f"{row[f'{kind}_latency_ratio']:.3f}"]
            how = f"{mode}, two loaded" if two else mode
            lines.append([f"`{row['model']}`, {row['axis']}", row["runtime"], how, *line, f"{row['macs_ratio']:.3f}"])
    heads = ["network", "runtime", "mode", "smallest over static", "largest over static", "in turn over alone", "size"]
    heads += ["memory"]
    yield markdown([*heads, "difference", "smallest over largest", "MACs"], lines)
    yield (
        f"Latency, batch {document['batch_size']}, {document['threads']} threads, {document['image_size']} pixels, "
        f"medians of {document['rounds']} rounds. In bold: above its limit, which is {limits['fast_over_static']} and "
        f"{limits['compact_over_static']} over the static file, {limits['in_turn_over_alone']} for two sub-networks in "
        f"turn, and {limits['fast_size']} ({limits['fast_size_mobilenet_v2']} of MobileNetV2) and "
        f"{limits['compact_size']} of the length of the largest sub-network's file. A fast file with widths holds a "
        "network for each, and has no limit. Two loaded: the smallest and the largest alone, each compiled on its own. "
        "Memory: what a process holds to run the largest, over the same of its own "
        "file. Difference: the largest of any sub-network from eager PyTorch."
    )


def within(figure: float, limit: float) -> str:
    return f"{figure:.3f}" if round(figure, 3) <= limit else f"**{figure:.3f}**"


def promises(document: Mapping[str, Any]) -> Iterable[str]:
    """What came of budgets that were promised."""
    keys = ("percentile", "budgets", "met", "met_at_equal_speed", "missed")
    lines = [[str(total[key]) for key in keys] for total in document["promises"]]
    yield markdown(["percentile", "budgets", "met", "met at equal speed", "missed"], lines)
    speeds = [row["speed"] for row in document["rows"]]
    yield (
        f"`{document['model']}`, all depths, batch {document['batch_size']}, {document['threads']} threads, "
        f"{document['image_size']} pixels, {document['rounds']} rounds. The chosen sub-network and all better ones "
        "were measured again for every budget, with the smallest one beside them as a yardstick: by it, the machine "
        f"took {min(speeds):.2f} to {max(speeds):.2f} times as long as when the table was made. Missed: budgets that a "
        f"better one would have kept by more than {100 * document['limits']['missed_by']:.0f} %, at equal speed."
    )


def beside_the_paper(row: Mapping[str, Any], figure: str) -> str:
    printed = row.get(f"{figure}_paper")
    return f"{row[figure]:.3f}" + (f" ({printed:.2f})" if printed is not None else "")


def anything(document: Mapping[str, Any]) -> Iterable[str]:
    """A table for each list of rows, and one for each group of single figures."""
    for key, value in document.items():
        if key == "provenance":
            continue
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            heads = list(dict.fromkeys(name for row in value for name in row))
            lines = [[shown(row.get(name)) for name in heads] for row in value]
            yield f"{title(key)}{markdown(heads, lines)}"
        elif isinstance(value, Mapping):
            yield f"{title(key)}{markdown(list(value), [[shown(item) for item in value.values()]])}"
    figures = {key: value for key, value in document.items() if key != "note"}
    single = {key: shown(value) for key, value in figures.items() if isinstance(value, str | int | float)}
    if single:
        yield "; ".join(f"{key} {value}" for key, value in single.items()) + "."


def title(key: str) -> str:
    return "" if key == "rows" else f"**{key.replace('_', ' ')}**\n\n"


def shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def source(path: Path, provenance: Mapping[str, Any]) -> str:
    versions = provenance["versions"]
    return (
        f"<sub>`{provenance['command']}`, {provenance['date']}, {provenance['device']} ({provenance['cpu']}), "
        f"Python {versions['python']}, PyTorch {versions['torch']}; `results/{path.name}`</sub>"
    )


def markdown(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    ruler = ["---", *(["---:"] * (len(heads) - 1))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, ruler, *lines])


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")
