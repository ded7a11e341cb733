"""Curves over the epochs of a training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle

from pliant.report.axes import TEXT, frame, legend, linear_axis, log_axis
from pliant.report.scene import Box, Item, Line, Marker, Scene, Text, text_width
from pliant.report.theme import SERIES

__all__ = ["accuracy_curves", "loss_curves"]

_TOP, _LEFT, _BOTTOM = 34.0, 44.0, 46.0
_LABEL_HEIGHT = 15.0
_SUM = "sum"
_ROOM_FOR_LABELS = 0.36
# From here on a linear axis would press the smaller curves onto its bottom line.
_LOGARITHMIC_FROM = 20.0

Curve = Sequence[tuple[float, float]]


def accuracy_curves(epochs: Sequence[Mapping[str, float]], *, width: float, plot_height: float) -> Scene | None:
    """Draw the validation accuracy of every sub-network that was validated; none where there is none."""
    curves = _curves(epochs, "val_acc1")
    if not curves:
        return None
    largest_first = sorted(curves.items(), key=lambda entry: entry[0].count("T"))
    shown = {f"{name} {curve[-1][1]:.1f} %".strip(): curve for name, curve in largest_first}
    return _chart("Validation accuracy", "top-1 accuracy on validation images, %", shown, width, plot_height)


def loss_curves(epochs: Sequence[Mapping[str, float]], *, width: float, plot_height: float) -> Scene | None:
    """Draw the training loss and its terms; none where there is none."""
    total = _curves(epochs, "train_loss").get("")
    terms = {_say_term(name): curve for name, curve in _curves(epochs, "loss_").items()}
    curves = {_SUM: total, **terms} if len(terms) > 1 else {"loss": total}
    curves = {name: curve for name, curve in curves.items() if curve}
    if not curves:
        return None
    return _chart("Training loss", "mean loss of an epoch", curves, width, plot_height)


def _curves(epochs: Sequence[Mapping[str, float]], prefix: str) -> dict[str, Curve]:
    names = dict.fromkeys(name for row in epochs for name in row if name.startswith(prefix))
    curves = {
        name.removeprefix(prefix).strip("_"): [(row["epoch"], row[name]) for row in epochs if name in row]
        for name in names
    }
    return {name: curve for name, curve in curves.items() if curve}


def _say_term(name: str) -> str:
    """`TTT<-FFF/logits` as a person would say it."""
    student, _, source = name.partition("<-")
    teacher, _, what = source.partition("/")
    return f"{student} from {teacher}'s {what}" if what else f"{student} from {teacher}" if teacher else student


def _chart(title: str, y_title: str, curves: Mapping[str, Curve], width: float, plot_height: float) -> Scene:
    values = [value for curve in curves.values() for _, value in curve]
    logarithmic = min(values) > 0 and max(values) / min(values) > _LOGARITHMIC_FROM and "loss" in y_title
    label_width = max(text_width(name, TEXT) for name in curves) + 14
    at_the_end = label_width < width * _ROOM_FOR_LABELS
    entries, legend_height = ([], 0.0) if at_the_end else legend(_legend(curves), width, 0)
    right = width - (label_width if at_the_end else 12)
    area = Box(_LEFT, legend_height + _TOP, right, legend_height + _TOP + plot_height)
    x = linear_axis([epoch for curve in curves.values() for epoch, _ in curve], whole=True, least_span=1, margin=0.02)
    y = log_axis(values) if logarithmic else linear_axis(values, ceiling=math.inf if "loss" in y_title else 100)

    items: list[Item] = [*entries, *frame(area, x, y, "epoch", y_title)]
    ends: list[tuple[float, str, str]] = []
    for (name, curve), (color, dash) in zip(curves.items(), _looks(curves), strict=False):
        points = [
            (x.place(epoch, area.left, area.right), y.place(value, area.bottom, area.top)) for epoch, value in curve
        ]
        items.append(Line(points=points, color=color, width=2, dash=dash))
        last = f"{name}, epoch {curve[-1][0]:.0f}: {curve[-1][1]:.4g}"
        items.append(Marker(x=points[-1][0], y=points[-1][1], radius=3, fill=color, color=color, title=last))
        ends.append((points[-1][1], name, color))
    if at_the_end:
        items += _end_labels(ends, area)
    first_and_last = (f"{name}: from {curve[0][1]:.3g} to {curve[-1][1]:.3g}" for name, curve in curves.items())
    description = f"Lines over {len(max(curves.values(), key=len))} epochs. " + "; ".join(first_and_last) + "."
    return Scene(width=width, height=area.bottom + _BOTTOM, title=title, description=description, items=items)


def _legend(curves: Mapping[str, Curve]) -> list[tuple[Item, str]]:
    return [
        (Line(points=((-9, 0), (9, 0)), color=color, width=2, dash=dash), name)
        for name, (color, dash) in zip(curves, _looks(curves), strict=False)
    ]


def _looks(curves: Mapping[str, Curve]) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Colour and dash of each curve; a sum stands apart from its parts."""
    if _SUM in curves:
        yield "muted", ()
    yield from cycle(SERIES)


def _end_labels(ends: Sequence[tuple[float, str, str]], area: Box) -> list[Item]:
    """Names where the lines end, pushed apart where the lines end close to each other."""
    ordered = sorted(ends)
    places: list[float] = []
    for height, _, _ in ordered:
        places.append(max(height, places[-1] + _LABEL_HEIGHT) if places else height)
    overhang = max(0.0, places[-1] - area.bottom)
    for index in range(len(places) - 1, -1, -1):
        limit = places[index + 1] - _LABEL_HEIGHT if index + 1 < len(places) else places[index] - overhang
        places[index] = min(places[index], limit)
    return [
        Text(x=area.right + 9, y=place + 4, text=name, color=color)
        for place, (_, name, color) in zip(places, ordered, strict=True)
    ]
