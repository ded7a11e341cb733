"""The page of a gate: what it costs beside every width, which class goes which way, and some of the images."""

import json
import re

import pytest
from PIL import Image

from pliant.measure.gate_table import GateTable, equal_accuracy
from pliant.report import page, report
from pliant.report.content import ReportError
from pliant.report.theme import DARK, LIGHT

from .conftest import INFO
from .test_page import Page
from .test_policies import charts, png

WRITE_PNG = page.write_png
ROUTES = ("width=0.25", "width=0.25/0.5/0.5", "width=0.25/1.0/1.0")
CHARTS = ("gate-over-macs", "gate-over-latency", "gate-budgets", "gate-shares")
SECTIONS = ["What the gate buys", "Which images go which way", "The gate, and every width for all images"]


@pytest.fixture(autouse=True)
def _no_images(monkeypatch):
    monkeypatch.setattr(page, "write_png", lambda path, scenes, theme: path.write_bytes(b"an image"))


def made_up(classes=3, shares=(0.5, 0.0, 0.5), acc1=91.0) -> GateTable:
    """Each wider network is 4 points better; later classes go wider."""
    networks = (*ROUTES, "width=1.0")
    static = [
        {"subnet": subnet, "gmacs": 0.01 * (place + 1), "acc1": 84.0 + 4 * place}
        | {"latency_ms_mean": 2.0 + place, "latency_ms": 1.5 + place, "latency_ms_p95": 2.2 + place}
        for place, subnet in enumerate(networks)
    ]
    gated = {"subnet": "gate", "gmacs": 0.02, "acc1": acc1, "shares": dict(zip(ROUTES, shares, strict=True))}
    gated |= {"latency_ms_mean": 3.5, "latency_ms": 3.0, "latency_ms_p95": 4.0}
    of_classes = []
    for number in range(classes):
        wide = 1 - number / max(classes - 1, 1)
        own = dict(zip(ROUTES, (1 - wide, 0.0, wide), strict=True))
        of_classes.append({"label": f"<class> {number}", "images": 10, "shares": own, "acc1": 90.0 + number / 10})
    noted = [
        {"index": 10 * place + number, "subnet": subnet, "label": "a cat", "certainty": 0.9, "png": png()}
        | {"predicted": "a dog" if number else "a cat"}
        for place, subnet in enumerate(ROUTES)
        if shares[place]
        for number in range(2)
    ]
    budget = gated | {"budget": 0.015, "gmacs": 0.0148, "acc1": 87.5, "latency_ms_mean": 2.5}
    info = INFO | {"routes": list(ROUTES), "rounds": 60, "found_on": "val", "found_on_images": 5000}
    return GateTable(
        gated=gated | {"equal_accuracy": equal_accuracy(gated, static)},
        budgets=[budget | {"equal_accuracy": equal_accuracy(budget, static)}],
        static=static,
        classes=of_classes,
        info=info,
        examples=noted,
    )


def written(tmp_path, table, name="gate.json"):
    table.save(tmp_path / name)
    return Page(report(tmp_path / name))


def test_a_file_of_a_gate(tmp_path):
    found = written(tmp_path, made_up())
    assert found.headings == [*SECTIONS, "How it was measured"]
    assert "resnet20 on CIFAR-10" in found.text
    said = (
        "With its gate 91.0 % of the test images are right, for 0.73 times the multiply-accumulates and 0.93 times the"
    )
    assert said in found.text
    assert "between width=0.25/0.5/0.5 and width=0.25/1.0/1.0, 75 % of the way" in found.text
    assert "of 60 test images, one by one, the gated network and the extracted widths taking turns" in found.text
    images = {f"gate-{name}-{theme}.png" for name in CHARTS for theme in ("light", "dark")}
    assert {file.name for file in tmp_path.iterdir()} == {"gate.json", "gate.html", *images}


def test_the_table_has_the_gate_and_every_width(tmp_path):
    rows = written(tmp_path, made_up()).table()
    assert rows[0] == ["gate chooses", "91.00", "20.0", "3.50", "3.00", "4.00", "0.73"]
    assert rows[1] == ["gate ≤ 15.0 with a budget", "87.50", "14.8", "2.50", "3.00", "4.00", "0.79"]
    assert rows[2] == ["width=0.25 all images", "84.00", "10.0", "2.00", "1.50", "2.20", ""]
    assert len(rows) == 6 and rows[5][-1] == ""


def test_budgets_are_said_to_be_found_on_validation_images(tmp_path):
    assert "million MACs an image, on average; found on 5,000 validation images" in written(tmp_path, made_up()).text


def test_the_gated_network_is_a_point_of_its_own_beside_the_line_of_widths(tmp_path):
    found = charts(written(tmp_path, made_up()))
    spends = ("≤ 15.0: 87.50 %, 14.8 million MACs", "≤ 15.0: 87.50 %, 2.50 ms")
    costs = (("computation", "20.0 million MACs"), ("latency", "3.50 ms"))
    for (title, cost), spent in zip(costs, spends, strict=True):
        drawn = found[f"Accuracy over average {title}"]
        assert re.findall(r"<g><title>(.*?)</title><polygon", drawn) == [f"gate: 91.00 %, {cost}", spent]
        assert drawn.count("</title><circle") == 4
        assert all(f">{name}</text>" in drawn for name in ("gate", "0.25", "0.25/0.5/0.5", "0.25/1.0/1.0", "1.0"))
        (line,) = [points for points in re.findall(r'polyline points="([^"]*)"', drawn) if points.count(",") == 4]
        assert len(line.split()) == 4


def test_bars_of_classes_begin_with_the_one_that_goes_narrowest(tmp_path):
    drawn = charts(written(tmp_path, made_up()))["Which way each class goes"]
    names = re.findall(r">(&lt;class&gt; \d)</text>", drawn)
    assert [name[-1] for name in names] == ["2", "1", "0"]
    shares = re.findall(r"<title>(\S+): (\S+) % of the images</title>", drawn)
    assert shares == [("0.25", "100.0"), ("0.25", "50.0"), ("0.25/1.0/1.0", "50.0"), ("0.25/1.0/1.0", "100.0")]
    assert ">90.2</text>" in drawn and "top-1, %" in drawn


def test_bars_of_budgets_begin_with_the_gate_as_it_is(tmp_path):
    drawn = charts(written(tmp_path, made_up()))["Which way the images go"]
    assert re.findall(r">(gate|≤ \S+)</text>", drawn) == ["gate", "≤ 15.0"]
    assert drawn.count("<title>0.25: 50.0 % of the images</title>") == 2 and ">87.5</text>" in drawn


def test_where_the_gate_sends_all_one_way_a_budget_is_shown(tmp_path):
    table = made_up(shares=(1.0, 0.0, 0.0), acc1=84.0)
    table.budgets[0]["shares"] = dict(zip(ROUTES, (0.25, 0.5, 0.25), strict=True))
    table.info["shown_budget"] = 0.015
    found = written(tmp_path, table)
    said = (
        "By itself it sends all images through width=0.25 . With 15.0 million multiply-accumulates an image to spend, "
    )
    assert f"{said}87.5 % of the test images are right, for 0.79 times the multiply-accumulates" in found.text
    assert "top-1, the gate chooses, ≤ 15.0" in found.text and "Which way each class goes, ≤ 15.0" in charts(found)
    assert "width=0.25 25.0 % of the images" in found.text
    assert f"net.onnx --policy {tmp_path.name}/gate.json --budget 0.015" in found.text
    assert "net.onnx --policy gate" in written(tmp_path, made_up()).text


def test_of_many_classes_both_ends_are_drawn(tmp_path):
    found = written(tmp_path, made_up(classes=100))
    names = re.findall(r">&lt;class&gt; (\d+)</text>", charts(found)["Which way each class goes"])
    assert list(map(int, names)) == [*range(99, 89, -1), *range(9, -1, -1)]
    assert "the ten that go narrowest" in found.text


def test_images_of_the_narrowest_and_the_widest_route(tmp_path):
    found = written(tmp_path, made_up())
    assert len(found.all("img")) == 4 and found.source.count('<li class="wrong">') == 2
    assert "width=0.25 50.0 % of the images" in found.text and "width=0.25/1.0/1.0 50.0 % of" in found.text
    assert "none was chosen by hand" in found.text


def test_a_gate_that_always_chooses_the_same(tmp_path):
    found = written(tmp_path, made_up(shares=(1.0, 0.0, 0.0), acc1=84.0))
    assert len(found.all("img")) == 2 and "on the only route that was taken" in found.text
    assert "of width=0.25 , which is as accurate" in found.text
    assert "more than with any width" in written(tmp_path, made_up(acc1=99.0)).text


def test_in_a_run_folder_it_stands_behind_the_widths(folders):
    folder = folders.table("run", made_up().static)
    made_up().save(folder / "gate.json")
    found = Page(report(folder))
    assert [heading for heading in found.headings if heading in SECTIONS] == SECTIONS
    assert found.headings[0] == "What accuracy costs" and "How the gate was measured" in found.headings
    assert "With its gate 91.0 %" in found.text
    (folder / "gate.json").unlink()
    report(folder)
    assert not list(folder.glob("gate-*.png"))


def test_charts_are_images_in_both_themes(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "write_png", WRITE_PNG)
    written(tmp_path, made_up())
    for variant, theme in (("light", LIGHT), ("dark", DARK)):
        image = Image.open(tmp_path / f"gate-gate-over-macs-{variant}.png").convert("RGB")
        colors = {"#{:02x}{:02x}{:02x}".format(*color) for _, color in image.getcolors(1 << 24)}
        assert {theme["paper"], theme["third"], theme["accent"]} <= colors


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"static": []}, "no width was measured"),
        ({"gated": {"subnet": "gate", "gmacs": 1.0, "acc1": 90.0}}, "gated has no shares"),
        ({"classes": [{"label": "a", "acc1": 1.0, "shares": {}}]}, "a row of shares has no number 'width=0.25'"),
        ({"examples": [{"index": 1, "certainty": 0.5}]}, "lacks subnet, label, predicted, png"),
    ],
)
def test_half_a_file_is_refused(tmp_path, change, said):
    path = tmp_path / "gate.json"
    made_up().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ReportError, match=said):
        report(path)
