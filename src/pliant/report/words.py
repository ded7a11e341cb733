"""What a table says, in plain language. Sub-networks stand between `backticks`; the page sets them in code."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pliant.report.content import Run
from pliant.report.scatter import Cost

__all__ = [
    "change",
    "commands",
    "details",
    "key_figures",
    "left_out",
    "legend",
    "names",
    "points",
    "scatter_of_latency",
    "split_name",
    "summary",
    "title",
    "uncertainty",
    "uncertainty_of",
]

Row = Mapping[str, Any]

_DATA = {"digits": "handwritten digits", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
_RESTLESS = 1.6
_SPLITS = {"test": "test images", "val": "validation images"}


def title(run: Run) -> str:
    """Network and data: `resnet20 on CIFAR-10`."""
    name = run.table.info.get("model") or (run.card.get("model") or {}).get("name") or run.folder.name
    return names(name, run.table.info.get("data"))


def names(model: str, data: str | None) -> str:
    """Network and data, as people call them."""
    network = str(model).rpartition(":")[2]
    return f"{network} on {_DATA.get(data, Path(data).name)}" if data else network


def split_name(info: Mapping[str, Any], *, one: bool = False) -> str:
    """Return what the measured images are called: `test images`; or `one` of them."""
    name = _SPLITS.get(info.get("split", ""), "images")
    return name.removesuffix("s") if one else name


def points(difference: float) -> str:
    """A difference of two percentages: `0.8 points less`."""
    if round(abs(difference), 1) == 0:
        return "the same"
    return f"{abs(difference):.1f} points {'less' if difference < 0 else 'more'}"


def change(new: float, old: float) -> str:
    """A relative change: `−37 %`."""
    percent = round(100 * (new / old - 1))
    sign = "−" if percent < 0 else "+" if percent > 0 else "±"
    return f"{sign}{abs(percent)} %"


def summary(run: Run, costs: Mapping[str, Cost]) -> str:
    """Return what to read first: how accurate the network is, and what the smallest saves at which price."""
    largest, smallest = run.largest, run.smallest
    if len(run.rows) == 1:
        return _one_network(largest, run, costs)
    sentences = [f"One set of weights holds {len(run.rows)} networks."]
    if "acc1" in largest:
        sentences.append(f"The largest, `{largest['subnet']}`, is right on {largest['acc1']:.1f} % of {_images(run)}.")
    savings = _savings(largest, smallest, costs)
    if savings:
        sentences.append(f"The smallest, `{smallest['subnet']}`, {savings}{_at_what_price(largest, smallest)}.")
    return " ".join(sentences)


def details(run: Run) -> str:
    """Return what to read next: the sub-networks that were not trained, and networks trained alone."""
    return " ".join(sentence for sentence in (_untrained(run), _alone(run)) if sentence)


def commands(run: Run) -> list[str]:
    """Return what to type next: choose for a budget that this table can meet, and ship what it gives."""
    folder = run.folder.resolve().name
    if len(run.rows) == 1:
        return [] if run.shipped else [f"pliant export {folder} net.onnx"]
    picks, chosen = [], run.smallest["subnet"]
    for cost, option in (("latency_ms", "--latency-ms"), ("gmacs", "--gmacs")):
        front = run.front(cost)
        if front:
            middle = next(row for row in run.rows if row["subnet"] == front[len(front) // 2])
            budget = _rounded_up(middle[cost])
            chosen = run.table.pick(**{cost: budget})["subnet"]
            picks = [f"pliant pick {folder} {option} {budget:g}"]
            break
    return picks if run.shipped else [*picks, _export(run, folder, chosen)]


def next_step(run: Run) -> str:
    """Return what these commands do."""
    if len(run.rows) == 1:
        return "Ship"
    return "Choose for a budget" if run.shipped else "Choose for a budget, and ship"


def uncertainty(run: Run) -> str:
    """Say how much of a difference chance can explain; empty where it is not known on how many images."""
    return uncertainty_of(run.table.info.get("images"), run.largest.get("acc1"))


def uncertainty_of(images: int | None, accuracy: float | None) -> str:
    """Say the same of an accuracy in percent on so many images."""
    if not images or accuracy is None:
        return ""
    share = accuracy / 100
    interval = 196 * math.sqrt(share * (1 - share) / images)
    if interval < 0.05:
        return ""
    return (
        f"An accuracy measured on {images:,} images is uncertain by about ±{interval:.1f} points (95 % interval): "
        "much smaller differences may be chance."
    )


def scatter_of_latency(rows: Sequence[Row]) -> str:
    """Warn where single passes took much longer than the median; empty where they did not."""
    ratios = [row["latency_ms_p95"] / row["latency_ms"] for row in rows if {"latency_ms", "latency_ms_p95"} <= {*row}]
    worst = max(ratios, default=1.0)
    if worst < _RESTLESS:
        return ""
    return (
        f"Latencies scattered, as on a busy machine (95th percentile up to {worst:.1f} times the median): "
        "measure again on an idle one before you rely on them."
    )


def left_out(run: Run) -> str:
    """Say which latencies are not compared."""
    if all(alone.same_timing for alone in run.alone):
        return ""
    return (
        "Networks trained alone whose latency was measured under other circumstances are left out of the latency chart."
    )


def legend(run: Run) -> str:
    """Say how to read the names of the sub-networks; empty where there is one."""
    names = [row["subnet"] for row in run.rows]
    if len(names) < 2:
        return ""
    parts = []
    if any({"T", "F"} & set(name) for name in names):
        parts.append(
            "One letter a stage, from the input to the output: `T` the second part of the stage is skipped, "
            "`F` it runs."
        )
    if any("exit=" in name for name in names):
        parts.append("`exit=1` ends at the first classifier, the last one is the network's own.")
    if any("width=" in name for name in names):
        parts.append(
            "`width=0.5` runs half of the channels of every layer; several numbers are those of the stages, from the "
            "input to the output."
        )
    return " ".join(parts)


def key_figures(run: Run, costs: Mapping[str, Cost]) -> list[dict[str, str]]:
    """Return the few numbers to see first: `value`, `label` and `note`."""
    largest, smallest = run.largest, run.smallest
    figures = []
    if "acc1" in largest:
        label = "top-1 accuracy" if len(run.rows) == 1 else f"top-1, largest `{largest['subnet']}`"
        figures.append({"value": f"{largest['acc1']:.1f} %", "label": label, "note": f"of {_images(run)}"})
    if len(run.rows) == 1:
        return figures + [
            {"value": cost.say(largest).partition(" ")[0], "label": cost.title, "note": cost.unit}
            for key, cost in costs.items()
            if key in largest
        ]
    if "acc1" in largest and "acc1" in smallest:
        difference = smallest["acc1"] - largest["acc1"]
        note = f"{points(difference)} than the largest" if round(abs(difference), 1) else "the same as the largest"
        label = f"top-1, smallest `{smallest['subnet']}`"
        figures.append({"value": f"{smallest['acc1']:.1f} %", "label": label, "note": note})
    for key, cost in costs.items():
        if key in largest and key in smallest:
            note = f"{cost.say(smallest).split()[0]} instead of {cost.say(largest).removesuffix(' MACs')}"
            label = f"{'MACs' if key == 'gmacs' else cost.title}, smallest `{smallest['subnet']}`"
            figures.append({"value": change(smallest[key], largest[key]), "label": label, "note": note})
    return figures


def _export(run: Run, folder: str, subnet: str) -> str:
    """The command that ships the network of that row, with the norm statistics that it was measured with."""
    count = run.table.info.get("recalibrated_on")
    trained = (run.smallest["subnet"], run.largest["subnet"])
    anew = f" --recalibrate {count}" if count and subnet not in trained else ""
    return f"pliant export {folder} net.onnx --subnet {subnet}{anew}"


def _rounded_up(value: float) -> float:
    """Two digits, not below the value."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return round(math.ceil(value / step) * step, 12)


def _images(run: Run) -> str:
    return f"the {split_name(run.table.info)}"


def _one_network(row: Row, run: Run, costs: Mapping[str, Cost]) -> str:
    parts = [f"is right on {row['acc1']:.1f} % of {_images(run)}"] if "acc1" in row else []
    if "gmacs" in row:
        parts.append(f"takes {costs['gmacs'].say(row)} an image")
    if "latency_ms" in row:
        parts.append(f"answers in {costs['latency_ms'].say(row)}")
    *first, last = parts or ["was measured"]
    return f"This network {', '.join(first)}{' and ' if first else ''}{last}."


def _savings(largest: Row, smallest: Row, costs: Mapping[str, Cost]) -> str:
    parts = []
    for key, verb, what in (("gmacs", "runs", "MACs"), ("latency_ms", "takes", "time")):
        if key in costs and key in largest and key in smallest:
            percent = round(100 * (1 - smallest[key] / largest[key]))
            less = ("fewer" if what == "MACs" else "less") if percent >= 0 else "more"
            parts.append(f"{verb} {abs(percent)} % {less} {what}")
    return " and ".join(parts)


def _at_what_price(largest: Row, smallest: Row) -> str:
    if "acc1" not in largest or "acc1" not in smallest:
        return ""
    return f" at {points(smallest['acc1'] - largest['acc1'])} accuracy"


def _untrained(run: Run) -> str:
    if run.trained is None:
        return ""
    others = [row["acc1"] for row in run.rows if row["subnet"] not in run.trained and "acc1" in row]
    trained = [f"`{row['subnet']}`" for row in run.rows if row["subnet"] in run.trained]
    if not others or not trained:
        return ""
    low, high = f"{min(others):.1f}", f"{max(others):.1f}"
    reach = f"reaches {low} %" if len(others) == 1 else f"reach {low} %" if low == high else f"reach {low} to {high} %"
    names = " and ".join([", ".join(trained[:-1]), trained[-1]] if len(trained) > 1 else trained)
    verb = "was" if len(trained) == 1 else "were"
    count = "one other shares their weights" if len(others) == 1 else f"{len(others)} others share their weights"
    own = ", with norm statistics of their own" if run.table.info.get("recalibrated_on") else ""
    return f"Only {names} {verb} trained; the {count} and {reach} without training of their own{own}."


def _alone(run: Run) -> str:
    parts: list[str] = []
    for row in reversed(run.rows):
        accuracies = [alone.row["acc1"] for alone in run.alone if alone.subnet == row["subnet"] and "acc1" in alone.row]
        if accuracies and "acc1" in row:
            mean = fmean(accuracies)
            of = f", mean of {len(accuracies)} runs" if len(accuracies) > 1 else ""
            here = points(row["acc1"] - mean)
            here = "as accurate as" if here == "the same" else f"{here} accurate than"
            parts.append(f"`{row['subnet']}` is {here} trained alone ({mean:.1f} %{of})")
    return f"Here {'; '.join(parts)}." if parts else ""
