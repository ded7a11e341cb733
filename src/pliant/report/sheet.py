"""A contact sheet: which images leave where by one policy, or go which way by a gate."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pliant.report.policies import Policies
from pliant.report.theme import in_order
from pliant.report.words import split_name

__all__ = ["Group", "caption", "group", "groups"]

_TINY = 40
"""Pixels of a side up to which a picture is shown with its pixels, not smoothed."""
_SURE = {
    "max_softmax": "its largest probability",
    "entropy": "1 − its entropy, as a part of the largest possible",
    "margin": "its largest probability minus the second",
}


@dataclass(frozen=True)
class Group:
    """The images of one sub-network: its name and colour, how many images it answered, and some of them."""

    name: str
    color: str
    share: str
    images: list[dict[str, Any]]


def groups(policies: Policies) -> list[Group]:
    """Return the images of each sub-network, in the order in which they are tried; empty where none were noted."""
    if not policies.table.examples:
        return []
    row, split = policies.rows[policies.shown], split_name(policies.table.info, one=True)
    result = []
    for subnet, color in zip(policies.subnets, in_order(len(policies.subnets)), strict=True):
        own = [one for one in policies.table.examples if one["subnet"] == subnet and one["row"] == policies.shown]
        result.append(group(policies.short(subnet), color, row["shares"][subnet], own, split))
    return result


def group(name: str, color: str, share: float, examples: Sequence[Mapping[str, Any]], split: str) -> Group:
    """Make a group of noted images; `split` is what one of them is called."""
    return Group(name, color, f"{100 * share:.1f} %", [_picture(one, split) for one in examples])


def caption(policies: Policies) -> str:
    """Say which images these are, and what stands below each."""
    info, row = policies.table.info, policies.rows[policies.shown]
    most = max(len(group.images) for group in groups(policies))
    which = f"the first {most} {split_name(info)}" if most > 1 else f"the first {split_name(info, one=True)}"
    return (
        f"With a budget of {policies.costs['gmacs'].say({'gmacs': row['budget']})}, {which} that each {policies.noun} "
        "answered, in the order of the data; none was chosen by hand. Below a picture stands the class of the image, "
        f"and how sure the answer was: {_sure(info)}. A wrong answer stands behind an arrow."
    )


def _sure(info: Mapping[str, Any]) -> str:
    said = _SURE.get(info.get("measure", ""), str(info.get("measure", "")))
    return f"{said}, after calibration" if info.get("calibrated") else said


def _picture(example: Mapping[str, Any], split: str) -> dict[str, Any]:
    wrong = example["label"] != example["predicted"]
    said = f", answered as {example['predicted']}" if wrong else ""
    return {
        "png": example["png"],
        "tiny": _width(example["png"]) <= _TINY,
        "label": example["label"],
        "answer": example["predicted"] if wrong else "",
        "certainty": f"{example['certainty']:.3f}",
        "alt": f"{split} {example['index']}, {example['label']}{said}, sure {example['certainty']:.3f}",
    }


def _width(png: str) -> int:
    """Read the width of a picture from the head of its file; 0 where it is none."""
    try:
        head = b64decode(png[:32])
    except ValueError:
        return 0
    return int.from_bytes(head[16:20], "big") if len(head) >= 20 else 0
