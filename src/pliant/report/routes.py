"""What a gate chooses, in plain language, and its table. Sub-networks stand between `backticks`."""

from __future__ import annotations

from pliant.report.content import Row
from pliant.report.gated import Gated
from pliant.report.listing import Column, Facts, Line, cells, cost_column, fixed, on_which_images, where_and_when
from pliant.report.sheet import Group, group
from pliant.report.theme import in_order
from pliant.report.words import change, names, points, split_name

__all__ = [
    "caption",
    "columns",
    "commands",
    "groups",
    "how_equal",
    "key_figures",
    "lines",
    "measured_how",
    "sentence",
    "summary",
    "title",
]


def title(gated: Gated) -> str:
    """Network and data: `resnet20 on CIFAR-10`."""
    info = gated.table.info
    return names(info.get("model") or gated.run.name, info.get("data"))


def summary(gated: Gated) -> str:
    """Return what to read first."""
    return f"A gate looks at every image and chooses how wide the rest of the network is. {sentence(gated)}"


def sentence(gated: Gated) -> str:
    """Say how accurate the gated network is, and what it costs beside a width that is as accurate."""
    row = gated.table.shown
    right = f"{row['acc1']:.1f} % of the {split_name(gated.table.info)} are right"
    how = _spending(gated) if "budget" in row else "With its gate"
    equal = row["equal_accuracy"]
    if equal is None:
        return f"{how} {right}, more than with any width for all images."
    costs = [f"{equal['gmacs_ratio']:.2f} times the multiply-accumulates"]
    if "latency_ratio" in equal:
        costs.append(f"{equal['latency_ratio']:.2f} times the time")
    first, second = equal["between"]
    other = "the width of equal accuracy" if first != second else f"`{first}`, which is as accurate"
    return f"{how} {right}, for {' and '.join(costs)} of {other}."


def _spending(gated: Gated) -> str:
    """Say why a budget is shown, and begin a sentence about it."""
    shares = gated.table.gated["shares"]
    route = max(shares, key=lambda name: shares[name])
    unit = gated.costs["gmacs"].unit.split()[0]
    alone = f"By itself it sends {'all' if shares[route] == 1 else 'nearly all'} images through `{route}`."
    return f"{alone} With {gated.amount(gated.table.shown)} {unit} multiply-accumulates an image to spend,"


def how_equal(gated: Gated) -> str:
    """Say which width is as accurate; empty where none is."""
    equal = gated.table.shown["equal_accuracy"]
    if equal is None or equal["between"][0] == equal["between"][1]:
        return ""
    first, second = equal["between"]
    return (
        f"The width of equal accuracy lies on the line between {first} and {second}, {100 * equal['share']:.0f} % of "
        "the way: what a coin gives that sends each image to one or the other. A gate on that line has learned nothing."
    )


def key_figures(gated: Gated) -> list[dict[str, str]]:
    """Return the few numbers to see first: `value`, `label` and `note`."""
    row, largest = gated.table.shown, gated.table.static[-1]
    difference = points(row["acc1"] - largest["acc1"])
    note = f"{difference} {'as' if difference == 'the same' else 'than'} {largest['subnet']}"
    figures = [{"value": f"{row['acc1']:.1f} %", "label": f"top-1, the gate chooses{gated.shown_at}", "note": note}]
    for cost in gated.costs.values():
        note = f"{cost.say(row).split()[0]} instead of {cost.say(largest).removesuffix(' MACs')}"
        figures.append({"value": change(row[cost.key], largest[cost.key]), "label": cost.title, "note": note})
    return figures


def columns(gated: Gated) -> list[Column]:
    """Return a column for everything that was measured, in the order people read it."""
    gmacs, latency = gated.costs["gmacs"], gated.costs.get("latency_ms_mean")
    digits = latency.digits if latency else 2
    known = [
        Column("acc1", "top-1", "%", "{:.2f}".format),
        Column("gmacs", "average MACs", gmacs.unit.split()[0], cost_column(gmacs).write),
        Column("latency_ms_mean", "mean latency", "ms", fixed(digits)),
        Column("latency_ms", "median", "ms", fixed(digits)),
        Column("latency_ms_p95", "95th percentile", "ms", fixed(digits)),
    ]
    present = {key for row in gated.table.rows for key in row}
    ratio = Column("gmacs_ratio", "MACs over equal accuracy", "", fixed(2))
    return [*(column for column in known if column.key in present), ratio]


def lines(gated: Gated, shown: list[Column]) -> list[Line]:
    """Return the rows of the table: the gated network, also with budgets, then every width for all images."""
    result = [Line("gate", "chooses", "trained", cells(_with_ratio(gated.table.gated), shown))]
    for name, row in gated.budgets.items():
        result.append(Line(f"gate {name}", "with a budget", "trained", cells(_with_ratio(row), shown)))
    return [*result, *(Line(row["subnet"], "all images", "anytime", cells(row, shown)) for row in gated.table.static)]


def _with_ratio(row: Row) -> Row:
    equal = row["equal_accuracy"]
    return row if equal is None else {**row, "gmacs_ratio": equal["gmacs_ratio"]}


def groups(gated: Gated) -> list[Group]:
    """Return the images of the narrowest and the widest route that were taken; empty where none were noted."""
    colors = dict(zip(gated.routes, in_order(len(gated.routes)), strict=True))
    if not gated.table.examples:
        return []
    split, shares = split_name(gated.table.info, one=True), gated.table.shown["shares"]
    return [
        group(
            route, colors[route], shares[route], [one for one in gated.table.examples if one["subnet"] == route], split
        )
        for route in gated.taken
    ]


def caption(gated: Gated) -> str:
    """Say which images these are, and what stands below each."""
    which = "on the narrowest and on the widest route" if len(gated.taken) > 1 else "on the only route that was taken"
    return (
        f"The first {split_name(gated.table.info)} {which}, in the order of the data; none was chosen by hand. Below a "
        "picture stands the class of the image, and the largest probability of the answer. A wrong answer stands "
        "behind an arrow."
    )


def measured_how(gated: Gated) -> Facts:
    """Say where and how the numbers came about."""
    info = gated.table.info
    facts = on_which_images(info)
    facts.append(("MACs", "of the gated network on average, the gate's own included"))
    if gated.table.budgets:
        spent = f"{gated.costs['gmacs'].unit} an image, on average"
        facts.append(("Budgets", f"{spent}; found on {info['found_on_images']:,} validation images"))
    if "latency_ms_mean" in gated.costs and info.get("rounds"):
        threads = f", {info['threads']} thread{'s' if info['threads'] != 1 else ''}" if info.get("threads") else ""
        turns = "one by one, the gated network and the extracted widths taking turns"
        facts.append(("Latency", f"of {info['rounds']} {split_name(info)}, {turns}{threads}, {info.get('dtype', '')}"))
    return facts + where_and_when(info)


def commands(gated: Gated) -> list[str]:
    """Return what to type next."""
    name = gated.run.resolve().name
    shown, policy = gated.table.shown, "gate"
    if "budget" in shown and (gated.run / "gate.json").is_file():
        policy = f"{name}/gate.json --budget {shown['budget']:.4g}"
    return [f"pliant measure {name}", f"pliant export {name} net.onnx --policy {policy}"]
