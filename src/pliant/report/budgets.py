"""What policies for budgets say, in plain language, and their table. Sub-networks stand between `backticks`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pliant.report.content import Row
from pliant.report.listing import Column, Facts, Line, cells, cost_column, fixed, on_which_images, where_and_when
from pliant.report.policies import Policies
from pliant.report.words import change, names, points, split_name

__all__ = ["columns", "commands", "key_figures", "lines", "measured_how", "sentence", "summary", "title"]


def title(policies: Policies) -> str:
    """Network and data: `resnet20 on CIFAR-10`."""
    info = policies.table.info
    name = info.get("model") or (policies.run.name if policies.run else "a network")
    return names(name, info.get("data"))


def summary(policies: Policies) -> str:
    """Return what to read first: how accurate the whole is, and what a budget in the middle of the sweep gives."""
    last, right = policies.short(policies.subnets[-1]), policies.whole["acc1"]
    end = f"If `{last}` answers all, {right:.1f} % of the {split_name(policies.table.info)} are right."
    return f"{_how(policies)} {end} {_in_the_middle(policies)}"


def sentence(policies: Policies) -> str:
    """Say what policies do, and what the one in the middle of the sweep gives."""
    return f"{_how(policies)} {_in_the_middle(policies)}"


def _how(policies: Policies) -> str:
    first, *_, last = (f"`{policies.short(name)}`" for name in policies.subnets)
    if policies.noun == "exit":
        return f"An image can leave at the first of {len(policies.subnets)} exits that is sure enough."
    between = "or" if len(policies.subnets) == 2 else "to"
    return f"An image can be answered by the first of {first} {between} {last} that is sure enough."


def _in_the_middle(policies: Policies) -> str:
    row, whole = policies.rows[policies.shown], policies.whole
    last, first = policies.short(policies.subnets[-1]), policies.short(policies.subnets[0])
    difference = points(row["acc1"] - whole["acc1"])
    saved = round(100 * (1 - row["gmacs"] / whole["gmacs"]))
    return (
        f"On a budget of {_asked(policies, row)} an image, {row['acc1']:.1f} % are right, "
        f"{'as many as' if difference == 'the same' else f'{difference} than'} if `{last}` answers all, with "
        f"{abs(saved)} % {'fewer' if saved >= 0 else 'more'} multiply-accumulates; "
        f"`{first}` answers {100 * row['shares'][policies.subnets[0]]:.0f} % of the images."
    )


def key_figures(policies: Policies) -> list[dict[str, str]]:
    """Return the few numbers to see first: `value`, `label` and `note`."""
    row, whole, end = policies.rows[policies.shown], policies.whole, _all_the_way(policies)
    asked, gmacs = _asked(policies, row), policies.costs["gmacs"]
    difference = row["acc1"] - whole["acc1"]
    figures = [
        {
            "value": f"{whole['acc1']:.1f} %",
            "label": f"top-1, `{policies.short(policies.subnets[-1])}` answers all",
            "note": f"of the {split_name(policies.table.info)}",
        },
        {
            "value": f"{row['acc1']:.1f} %",
            "label": f"top-1, budget of {asked}",
            "note": points(difference),
        },
        {
            "value": change(row["gmacs"], whole["gmacs"]),
            "label": "average MACs, same budget",
            "note": f"{gmacs.say(row).split()[0]} instead of {gmacs.say(whole).removesuffix(' MACs')}",
        },
    ]
    if end is not None and end is not row and "latency_ms_mean" in policies.costs:
        cost = policies.costs["latency_ms_mean"]
        note = f"{cost.say(row).split()[0]} instead of {cost.say(end)}"
        value = change(row[cost.key], end[cost.key])
        return [*figures, {"value": value, "label": "mean latency, same budget", "note": note}]
    share, first = row["shares"][policies.subnets[0]], policies.short(policies.subnets[0])
    note = "of the images, same budget"
    figures.append({"value": f"{100 * share:.0f} %", "label": f"answered by `{first}`", "note": note})
    return figures


def _asked(policies: Policies, row: Row) -> str:
    return policies.costs["gmacs"].say({"gmacs": row["budget"]})


def _all_the_way(policies: Policies) -> Row | None:
    """The row of a policy by which all images go to the end at once, with whose latency others compare."""
    if not policies.one_pass:
        return None
    return next((row for row in policies.rows if row["shares"][policies.subnets[-1]] == 1), None)


def columns(policies: Policies) -> list[Column]:
    """Return a column for everything that was measured, in the order people read it."""
    digits = policies.costs["latency_ms_mean"].digits if "latency_ms_mean" in policies.costs else 2
    gmacs = policies.costs["gmacs"]
    known = [
        Column("acc1", "top-1", "%", "{:.2f}".format),
        Column("gmacs", "average MACs", gmacs.unit.split()[0], cost_column(gmacs).write),
        Column("latency_ms_mean", "mean latency", "ms", fixed(digits)),
        Column("latency_ms", "median", "ms", fixed(digits)),
        Column("latency_ms_p95", "95th percentile", "ms", fixed(digits)),
        *(Column(_share(name), policies.short(name), "% of images", fixed(1)) for name in policies.subnets),
    ]
    present = {"acc1", "gmacs", *(key for row in policies.rows for key in row), *map(_share, policies.subnets)}
    return [column for column in known if column.key in present]


def lines(policies: Policies, shown: list[Column]) -> list[Line]:
    """Return the rows of the table: budgets, then the same sub-network for all images."""
    cost, pictured = policies.costs["gmacs"], policies.rows[policies.shown]
    result = []
    for row in sorted(policies.rows, key=lambda row: row["budget"]):
        shares = {_share(name): 100 * share for name, share in row["shares"].items()}
        remark = "pictured" if policies.table.examples and row is pictured else ""
        name = f"{row['budget'] * cost.factor:.{cost.digits}f}"
        result.append(Line(name, remark, "budget", cells({**row, **shares}, shown)))
    for row in policies.anytime:
        result.append(Line(policies.short(row["subnet"]), "all images", "anytime", cells(row, shown)))
    return result


def measured_how(policies: Policies) -> Facts:
    """Say where and how the numbers came about."""
    info = policies.table.info
    facts = on_which_images(info)
    if info.get("found_on_images"):
        facts.append(("Thresholds", f"found on {info['found_on_images']:,} validation images, one set for each budget"))
    if info.get("measure"):
        temperatures = "a temperature for each" if info.get("calibrated") else "without calibration"
        facts.append(("Confidence", f"{info['measure']}, {temperatures}"))
    facts.append(("Tried in turn", ", ".join(policies.subnets)))
    facts.append(("MACs", "all that ran for an image, classifiers of earlier exits and earlier passes included"))
    if "latency_ms_mean" in policies.costs:
        facts.append(("Latency", _latency_how(info)))
    return facts + where_and_when(info)


def commands(policies: Policies) -> list[str]:
    """Return what to type next, where it is known what was measured: more budgets, and what ships an exit."""
    if policies.run is None:
        return []
    name = policies.run.resolve().name
    more = 2 * len(policies.rows) + 1
    return [
        f"pliant measure {name} --policy confidence --budgets {more}",
        f"pliant export {name} net.onnx --subnet {policies.subnets[0]}",
    ]


def _share(subnet: str) -> str:
    return f"share {subnet}"


def _latency_how(info: Mapping[str, Any]) -> str:
    images = f"of {info['rounds']} {split_name(info)}, " if info.get("rounds") else "of "
    threads = f", {info['threads']} thread{'s' if info['threads'] != 1 else ''}" if info.get("threads") else ""
    dtype = f", {info['dtype']}" if info.get("dtype") else ""
    return f"{images}one by one, the policies taking turns{threads}{dtype}"
