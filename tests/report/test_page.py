"""The page and its images, from whole and from half-filled run folders."""

import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from pliant.report import page, report
from pliant.report.theme import DARK, LIGHT
from pliant.train.recipe import Phase, PlanChoice

WRITE_PNG = page.write_png
IMAGES = ("accuracy-over-macs", "accuracy-over-latency", "training")


@pytest.fixture(autouse=True)
def _no_images(monkeypatch):
    """Images take most of the time, and one test looks at them."""
    monkeypatch.setattr(page, "write_png", lambda path, scenes, theme: path.write_bytes(b"an image"))


class Page(HTMLParser):
    """Reads what a test asks for; complains of tags that are not closed."""

    VOID = ("meta", "br", "hr", "img", "input", "link")

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open, self.tags, self.headings, self.cells = [], [], [], []
        self.words = []
        self.feed(self.source)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open and "svg" not in self.open and "pre" not in self.open:
            self.words.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def table(self):
        body = re.search(r"<tbody>(.*?)</tbody>", self.source, re.S).group(1)
        return [
            [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.S)]
            for row in re.findall(r"<tr.*?</tr>", body, re.S)
        ]


def test_a_whole_run(folders):
    folder = folders.run()
    path = report(folder)
    assert path == folder / "report.html"
    found = Page(path)
    assert found.headings == [
        "What accuracy costs",
        "All sub-networks",
        "How the training went",
        "How it was measured",
        "How it was trained",
    ]
    assert "resnet20 on CIFAR-10" in found.text
    assert "The largest, FFF , is right on 84.0 % of the test images." in found.text
    assert "median of 30 rounds in which the sub-networks take turns; batches of 1, 2 threads, float32" in found.text
    assert "A Processor" in found.text and "torch 2.14.1" in found.text and "2026-05-09 07:35:25 UTC" in found.text
    assert "3 epochs, batches of 128 images" in found.text and "2,340 images/s" in found.text
    assert "pliant pick run --latency-ms 1.6" in found.text and "net.onnx --subnet TTF" in found.text
    assert len(found.table()) == 8


def test_nothing_is_loaded_from_elsewhere(folders):
    found = Page(report(folders.run()))
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|<link|<img|src=", found.source)


def test_light_and_dark(folders, monkeypatch):
    monkeypatch.setattr(page, "write_png", WRITE_PNG)
    folder = folders.run()
    found = Page(report(folder))
    light, dark = found.source.split("prefers-color-scheme: dark", 1)
    assert f"--ink: {LIGHT['ink']};" in light and f"--ink: {DARK['ink']};" in dark
    used = set(re.findall(r"var\(--(\w+)\)", found.source))
    assert used <= set(LIGHT) == set(DARK) and {"accent", "front"} <= used
    drawn = "".join(re.findall(r"<svg.*?</svg>", found.source, re.S))
    assert "#" not in drawn, "charts take their colours from the page"
    for name in IMAGES:
        for variant, theme in (("light", LIGHT), ("dark", DARK)):
            image = Image.open(folder / f"{name}-{variant}.png").convert("RGB")
            assert "#{:02x}{:02x}{:02x}".format(*image.getpixel((2, 2))) == theme["paper"]
            assert image.width > 1400 and len(image.getcolors(1 << 24)) > 20


def test_accessible(folders):
    found = Page(report(folders.run()))
    assert dict(found.all("html")[0])["lang"] == "en" and found.all("main") and found.all("h1")
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    charts = found.all("svg")
    assert len(charts) == 2 * 4, "each chart for wide and for narrow windows"
    for chart in charts:
        assert chart["role"] == "img" and set(chart["aria-labelledby"].split()) <= set(ids)
    assert "FTF 83.5 % at 36.7 million MACs" not in found.text and "TTF 83.7 % at 31.8 million MACs" in found.source
    headers = found.all("th")
    assert all(header.get("scope") in ("col", "row") for header in headers)
    assert sum(header["scope"] == "row" for header in headers) == 8


def test_the_table_marks_what_is_best_for_its_cost(folders):
    found = Page(report(folders.run()))
    marked = {row[0].split()[0]: [cell.startswith("best for its cost") for cell in row[3:5]] for row in found.table()}
    assert {name for name, (macs, _) in marked.items() if macs} == {"TTT", "TTF", "FFF"}
    assert all(macs == latency for macs, latency in marked.values())
    rows = {row[0]: row for row in found.table()}
    assert rows["TTT trained"][1:3] == ["83.20", "−0.80"] and rows["FFF trained"][2] == "0.00"
    assert "TTF" in rows, "a sub-network that was not trained carries no remark"


def test_networks_trained_alone(folders):
    baselines = [folders.alone("a", "FFF", 84.2), folders.alone("b", "FFF", 84.4), folders.alone("c", "TTT", 83.2)]
    found = Page(report(folders.run(), baselines=baselines))
    assert "Here FFF is 0.3 points less accurate than trained alone (84.3 %, mean of 2 runs)" in found.text
    assert "TTT is as accurate as trained alone (83.2 %)" in found.text
    assert [row[0] for row in found.table()[8:]] == ["TTT trained alone", "FFF trained alone", "FFF trained alone"]
    diamonds = re.findall(r"<g><title>(\w+ alone: .*?)</title><polygon", found.source)
    assert len(diamonds) == 4 * 3, "two charts, wide and narrow"
    assert found.source.count(">FFF alone</text>") == 4, "one of two alike carries a name"
    assert "left out of the latency chart" not in found.text


def test_latency_from_other_circumstances_is_not_compared(folders):
    found = Page(report(folders.run(), baselines=[folders.alone("a", "FFF", 84.2, threads=8)]))
    assert len(re.findall(r"<title>FFF alone: ", found.source)) == 2, "in the chart of computation alone"
    assert "left out of the latency chart" in found.text
    assert found.table()[-1][4] == ""


def test_what_is_missing_is_absent(folders):
    folder = folders.table("bare", folders.rows(latency=False))
    found = Page(report(folder))
    assert found.headings == ["What accuracy costs", "All sub-networks", "How it was measured"]
    assert "latency" not in found.text.lower() and "trained" not in found.text and "None" not in found.text
    assert sorted(path.name for path in folder.iterdir()) == [
        "accuracy-over-macs-dark.png",
        "accuracy-over-macs-light.png",
        "report.html",
        "table.json",
    ]


def test_images_of_an_earlier_report_do_not_stay(folders):
    folder = folders.run()
    report(folder)
    folders.table("run", folders.rows(latency=False))
    (folder / "metrics.csv").unlink()
    report(folder)
    assert {path.name for path in folder.glob("*.png")} == {
        "accuracy-over-macs-light.png",
        "accuracy-over-macs-dark.png",
    }


def test_without_accuracy(folders):
    rows = [{key: value for key, value in row.items() if not key.startswith("acc")} for row in folders.rows()]
    found = Page(report(folders.table("run", rows)))
    assert "The smallest, TTT , runs 36 % fewer MACs and takes 36 % less time." in found.text
    assert "What accuracy costs" not in found.headings and len(found.table()) == 8


def test_one_row(folders):
    found = Page(report(folders.alone("only", "FFF", 84.2)))
    assert "This network is right on 84.2 % of the test images, takes 40.8 million MACs" in found.text
    assert "The network" in found.headings and len(found.table()) == 1 and not found.all("svg")
    assert "pliant export only net.onnx" in found.text and "pliant pick" not in found.text


def test_plain_training_has_unnamed_curves(folders):
    folder = folders.alone("only", "FFF", 84.2)
    folders.recipe(folder, only="FFF")
    folders.metrics(folder, [{"epoch": 1, "step": 9, "train_loss": 1.0, "lr": 0.1, "val_acc1": 55.5}])
    found = Page(report(folder))
    assert "FFF alone, from the labels" in found.text
    assert ">55.5 %</text>" in found.source and ">loss</text>" in found.source


def test_a_training_of_two_phases_names_both(folders):
    folder = folders.run()
    folders.recipe(folder, then=(Phase(epochs=2, plan=PlanChoice(name="adn")),))
    text = Page(report(folder)).text
    assert "3 epochs, batches of 128 images, then 2 epochs, batches of 128 images" in text
    assert "plan adn-sum, then plan adn" in text and "Time of the last phase" in text
    assert text.count("learning rate 0.1") == 1  # both are trained alike in that


def test_energy_and_the_interval_of_the_median_have_columns_and_other_percentiles_none(folders):
    more = {"energy_mj": 61.234, "latency_ms_low": 1.9, "latency_ms_high": 2.1}
    rows = [row | more | {"latency_ms_p99": 98.7, "latency_ms_p95_high": 87.6} for row in folders.rows()]
    found = Page(report(folders.table("run", rows)))
    cells = found.table()[0]
    assert "61.2" in cells and {"1.9", "2.1"} <= {cell.rstrip("0") for cell in cells}
    assert "98.7" not in found.text and "87.6" not in found.text


def test_other_quantities_find_a_column(folders):
    rows = [row | {"fan_rpm": 12.3456} for row in folders.rows()]
    found = Page(report(folders.table("run", rows)))
    assert "fan rpm" in found.text and found.table()[0][-1] == "12.3"


def test_out_and_markup_in_names(folders, tmp_path):
    folder = folders.table("run", folders.rows(), data="/data/<b>&co")
    path = report(folder, out=tmp_path / "site" / "index.html")
    assert path == tmp_path / "site" / "index.html" and (tmp_path / "site" / "accuracy-over-macs-dark.png").exists()
    assert not (folder / "report.html").exists()
    found = Page(path)
    assert "resnet20 on <b>&co" in found.text and "<b>&co" not in found.source
    assert report(folder, out=tmp_path / "site") == tmp_path / "site" / "report.html"


@pytest.mark.parametrize("count", [1, 2])
def test_few_epochs(folders, count):
    folder = folders.run()
    folders.metrics(folder, folders.epochs(count))
    assert "How the training went" in Page(report(folder)).headings


def test_a_loss_that_was_not_a_number_is_a_gap(folders):
    folder = folders.run()
    lines = folders.epochs()
    lines[1]["train_loss"] = "nan"
    folders.metrics(folder, lines)
    drawn = "".join(re.findall(r"<svg.*?</svg>", Page(report(folder)).source, re.S))
    assert "nan" not in drawn.lower()
