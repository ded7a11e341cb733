"""Charts: nothing covers anything, the front is a front, ticks are round."""

import random
from itertools import pairwise

import pytest

from pliant.report.axes import linear_axis, log_axis
from pliant.report.content import read_run
from pliant.report.curves import accuracy_curves, loss_curves
from pliant.report.labels import Label, place_labels
from pliant.report.scatter import accuracy_over, costs_of
from pliant.report.scene import Box, Line, Marker, Text, text_width

AREA = Box(40, 40, 520, 360)


def box_of(text: Text) -> Box:
    width = text_width(text.text, text.size, text.mono)
    left = {"start": text.x, "middle": text.x - width / 2, "end": text.x - width}[text.anchor]
    return Box(left, text.y - 0.75 * text.size, left + width, text.y)


def around(x: float, y: float, radius: float) -> Box:
    return Box(x - radius, y - radius, x + radius, y + radius)


@pytest.mark.parametrize("seed", range(40))
def test_names_cover_neither_names_nor_points(seed):
    generator = random.Random(seed)
    spread = 150 if seed % 2 else 40  # half of them crowded
    points = [
        Label(x=280 + generator.uniform(-1, 1) * spread, y=200 + generator.uniform(-1, 1) * spread, radius=5, text=name)
        for name in (f"{number:04b}".replace("0", "F").replace("1", "T") for number in range(16))
    ]
    texts = [item for item in place_labels(points, AREA) if isinstance(item, Text)]
    boxes = [box_of(text) for text in texts]
    for index, box in enumerate(boxes):
        assert box.inside(AREA)
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])
        assert not any(box.overlaps(around(point.x, point.y, point.radius)) for point in points)
    assert len(texts) == 16 if seed % 2 else len(texts) >= 12


def test_a_name_without_room_is_left_out_and_the_first_is_kept():
    tiny = Box(0, 0, 120, 40)
    crowd = [Label(x=40 + 4 * number, y=20, radius=5, text=f"N{number:03d}") for number in range(9)]
    texts = [item.text for item in place_labels(crowd, tiny) if isinstance(item, Text)]
    assert 0 < len(texts) < 9 and texts[0] == "N000"


def chart(folders, rows, **size):
    run = read_run(folders.table("run", rows))
    return accuracy_over(run, costs_of(run.rows)["gmacs"], **({"width": 540, "plot_height": 330} | size))


def test_the_front_rises_with_the_budget_whatever_the_order_of_rows(folders):
    rows = folders.rows()
    random.Random(1).shuffle(rows)
    scene = chart(folders, rows)
    stairs = next(
        item for item in scene.items if isinstance(item, Line) and len(item.points) > 2 and item.points[0][0] > 20
    )
    xs, ys = zip(*stairs.points, strict=True)
    assert list(xs) == sorted(xs) and list(ys) == sorted(ys, reverse=True)
    markers = {item.title.split(":")[0]: (item.x, item.y) for item in scene.items if isinstance(item, Marker)}
    assert [name for name, place in markers.items() if place in stairs.points] == [
        row["subnet"] for row in rows if row["subnet"] in ("TTT", "TTF", "FFF")
    ]


@pytest.mark.parametrize("width", [540, 350])
def test_sixteen_subnets_all_named(folders, width):
    scene = chart(folders, folders.rows(stages=4), width=width)
    named = {item.text for item in scene.items if isinstance(item, Text) and item.mono}
    assert len(named) == 16
    for item in scene.items:
        if isinstance(item, Text):
            assert box_of(item).inside(Box(-1, 0, width + 1, scene.height))


def test_equal_accuracies_are_not_blown_up(folders):
    rows = [row | {"acc1": 98.0 + 0.01 * number} for number, row in enumerate(folders.rows())]
    heights = [item.y for item in chart(folders, rows).items if isinstance(item, Marker) and item.title]
    assert max(heights) - min(heights) < 60, "a difference of 0.07 points fills no plot"


def test_there_is_no_accuracy_above_100(folders):
    rows = [row | {"acc1": 99.9} for row in folders.rows()]
    ticks = [item.text for item in chart(folders, rows).items if isinstance(item, Text) and item.anchor == "end"]
    assert "100.00" in ticks and not any(tick.startswith("100.2") for tick in ticks)


@pytest.mark.parametrize("values", [[83.2, 84.0], [0.0257, 0.0408], [5.0], [0.0], [1, 300], [2.58, 4.09]])
def test_ticks_are_distinct_true_and_within(values):
    axis = linear_axis(values)
    assert len(set(axis.labels)) == len(axis.ticks) >= 2
    assert all(
        float(label) == pytest.approx(tick, abs=1e-9) for label, tick in zip(axis.labels, axis.ticks, strict=True)
    )
    assert axis.low <= min(values) and max(values) <= axis.high
    assert axis.place(axis.low, 10, 20) == 10 and axis.place(axis.high, 10, 20) == pytest.approx(20)


def test_logarithmic_axis():
    axis = log_axis([0.003, 2.0])
    assert axis.labels == ("0.01", "0.1", "1")
    assert axis.place(0.1, 0, 1) - axis.place(0.01, 0, 1) == pytest.approx(axis.place(1, 0, 1) - axis.place(0.1, 0, 1))


def test_curves_skip_epochs_without_validation(folders):
    epochs = [{k: float(v) for k, v in line.items() if v != ""} for line in folders.epochs(4)]
    scene = accuracy_curves(epochs, width=540, plot_height=330)
    curves = [item for item in scene.items if isinstance(item, Line) and item.width == 2]
    assert [len(curve.points) for curve in curves] == [3, 3]
    assert {item.text for item in scene.items if isinstance(item, Text)} >= {"FFF 84.0 %", "TTT 83.0 %"}
    assert accuracy_curves([{"epoch": 1.0, "lr": 0.1}], width=540, plot_height=330) is None


@pytest.mark.parametrize("width", [540, 350])
def test_loss_terms_are_named_and_names_apart(folders, width):
    epochs = [{k: float(v) for k, v in line.items() if v != ""} for line in folders.epochs()]
    scene = loss_curves(epochs, width=width, plot_height=330)
    names = [item for item in scene.items if isinstance(item, Text) and ("from" in item.text or item.text == "sum")]
    assert {name.text for name in names} == {
        "sum",
        "FFF from labels",
        "TTT from FFF's logits",
        "TTT from FFF's features",
    }
    for index, name in enumerate(names):
        assert not any(box_of(name).overlaps(box_of(other)) for other in names[index + 1 :])
    lines = [(item.color, item.dash) for item in scene.items if isinstance(item, Line) and item.width == 2]
    assert len(set(lines)) >= 4, "told apart by colour and by dash"


def test_curves_that_end_together_have_names_apart():
    epochs = [{"epoch": float(e), **{f"val_acc1_{name}": 80.0 for name in ("FFF", "TTF", "TTT")}} for e in (1, 2)]
    scene = accuracy_curves(epochs, width=540, plot_height=330)
    places = sorted(item.y for item in scene.items if isinstance(item, Text) and item.text.endswith("80.0 %"))
    assert len(places) == 3 and min(b - a for a, b in pairwise(places)) >= 14
