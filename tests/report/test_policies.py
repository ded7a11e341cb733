"""The page of policies: who leaves where, at which cost, and which images those are."""

import json
import re
from base64 import b64encode
from dataclasses import replace
from io import BytesIO

import pytest
from PIL import Image

from pliant.measure.policy_table import PolicyTable
from pliant.policy.confidence import ConfidencePolicy
from pliant.report import page, report
from pliant.report.theme import DARK, LIGHT

from .conftest import INFO
from .test_page import Page

WRITE_PNG = page.write_png
EXITS = ("exit=1", "exit=2", "exit=3")
CASCADE = ("TTT", "FFF")
SECTIONS = ["What accuracy costs on average", "Who leaves where", "All budgets", "How it was measured"]
CHARTS = ("accuracy-over-average-macs", "accuracy-over-average-latency", "exit-shares")


@pytest.fixture(autouse=True)
def _no_images(monkeypatch):
    monkeypatch.setattr(page, "write_png", lambda path, scenes, theme: path.write_bytes(b"an image"))


def png(side=16):
    buffer = BytesIO()
    Image.new("L", (side, side), 99).save(buffer, format="PNG")
    return b64encode(buffer.getvalue()).decode()


def made_up(subnets=EXITS, budgets=5, latency=True, examples=True, **info) -> PolicyTable:
    """Policies under which ever more images go to the end; each later sub-network is 2 points better."""
    count = len(subnets)
    costs = [0.01 * (place + 1) for place in range(count)]
    rows, policies = [], []
    for place in range(budgets):
        late = place / max(budgets - 1, 1)
        shares = {subnet: (1 - late) / (count - 1) for subnet in subnets[:-1]} | {subnets[-1]: late}
        gmacs = sum(share * cost for share, cost in zip(shares.values(), costs, strict=True))
        row = {"budget": gmacs + 0.0001, "gmacs": gmacs, "acc1": 90 + 5 * late, "shares": shares}
        if latency:
            row |= {"latency_ms_mean": 2 + 2 * late, "latency_ms": 2 + late, "latency_ms_p95": 5 + late}
        rows.append(row)
        thresholds = (*(0.9 for _ in subnets[1:]), float("-inf"))
        policies.append(
            ConfidencePolicy(subnets=subnets, thresholds=thresholds, num_classes=10, costs=costs, budget=row["budget"])
        )
    anytime = [
        {"subnet": subnet, "gmacs": cost, "acc1": 95.0 - 2 * (count - 1 - place)}
        for place, (subnet, cost) in enumerate(zip(subnets, costs, strict=True))
    ]
    noted = [
        {
            "row": budgets // 2,
            "index": 10 * place + number,
            "subnet": subnet,
            "label": "a <cat>",
            "predicted": "a dog" if place == number == 1 else "a <cat>",
            "certainty": 0.9 + 0.01 * number,
            "png": png(),
        }
        for place, subnet in enumerate(subnets)
        for number in range(3)
    ]
    measured = INFO | {"measure": "max_softmax", "calibrated": False, "found_on_images": 5000, "rounds": 60} | info
    return PolicyTable(rows, anytime, policies, measured, noted if examples else [])


def charts(found):
    """Each chart by its title, as the page shows it in wide windows."""
    drawn = re.findall(r"<svg.*?<title[^>]*>([^<]*)</title>(.*?)</svg>", found.source, re.S)
    return dict(drawn[::2])


def test_a_file_of_policies(tmp_path):
    path = tmp_path / "policies.json"
    made_up().save(path)
    assert report(path) == tmp_path / "policies.html"
    found = Page(tmp_path / "policies.html")
    assert found.headings == SECTIONS
    assert "resnet20 on CIFAR-10" in found.text
    assert "If exit=3 answers all, 95.0 % of the test images are right." in found.text
    assert "On a budget of 22.6 million MACs an image, 92.5 % are right, 2.5 points less than" in found.text
    assert "with 25 % fewer multiply-accumulates; exit=1 answers 25 % of the images" in found.text
    assert "found on 5,000 validation images" in found.text and "max_softmax, without calibration" in found.text
    assert "of 60 test images, one by one, the policies taking turns, 2 threads, float32" in found.text
    assert "A Processor" in found.text and "torch 2.14.1" in found.text and "2026-05-09 07:35:25 UTC" in found.text
    assert f"pliant measure {tmp_path.name} --policy confidence --budgets 11" in found.text
    images = {f"policies-{name}-{theme}.png" for name in CHARTS for theme in ("light", "dark")}
    assert {file.name for file in tmp_path.iterdir()} == {"policies.json", "policies.html", *images}


def test_the_table_of_budgets(tmp_path):
    rows = Page(report(made_up(), out=tmp_path / "page.html")).table()
    assert rows[0] == ["15.1", "90.00", "15.0", "2.00", "2.00", "5.00", "50.0", "50.0", "0.0"]
    assert rows[2][0] == "22.6 pictured" and len(rows) == 5 + 3
    assert rows[5] == ["exit=1 all images", "91.00", "10.0", "", "", "", "", "", ""]


def test_curves_of_budgets_and_of_each_exit_alone(tmp_path):
    found = charts(Page(report(made_up(), out=tmp_path / "page.html")))
    computation, latency = found["Accuracy over average computation"], found["Accuracy over average latency"]
    assert re.findall(r"<g><title>(.*?)</title><polygon", computation) == [
        f"all up to exit={number}: {acc1:.2f} %, {10 * number}.0 million MACs"
        for number, acc1 in enumerate((91, 93, 95), start=1)
    ]
    assert "budget of 22.6 million MACs: 92.50 %, 22.5 million MACs</title>" in computation
    assert all(f">{name}</text>" in computation for name in EXITS)
    assert "budget of 22.6 million MACs: 92.50 %, 3.00 ms</title>" in latency and "all up to" not in latency
    both = re.findall(r'<polyline [^>]*stroke-width="2"[^>]*>', computation)
    assert len([line for line in both if "dasharray" in line]) == 2, "the steps of the exits, and in the legend"


def test_bars_are_the_shares(tmp_path):
    drawn = charts(Page(report(made_up(), out=tmp_path / "page.html")))["Where the images leave"]
    bars = re.findall(r"<g><title>(.*?): (.*?) % of the images</title><rect x=\"(.*?)\".*? width=\"(.*?)\"", drawn)
    assert len(bars) == 2 + 3 * 3 + 1, "a share of nothing is not drawn"
    assert [(name, share) for name, share, _, _ in bars[:2]] == [("exit=1", "50.0"), ("exit=2", "50.0")]
    whole = float(bars[-1][3])
    for name, share, _, width in bars:
        assert float(width) == pytest.approx(whole * float(share) / 100, abs=3), name
    starts = [float(start) for _, _, start, _ in bars[5:8]]
    assert [start - starts[0] for start in starts] == pytest.approx([0, whole / 4, whole / 2], abs=3), "stacked"
    assert drawn.count(">25</text>") == 3 + 1, "written into the bars, and once on the axis"


def test_nearly_all_is_not_all(tmp_path):
    table = made_up()
    table.rows[-1]["shares"] = {"exit=1": 0.001, "exit=2": 0.0, "exit=3": 0.999}
    drawn = charts(Page(report(table, out=tmp_path / "page.html")))["Where the images leave"]
    assert ">99.9</text>" in drawn and drawn.count(">100</text>") == 1


def test_contact_sheet(tmp_path):
    found = Page(report(made_up(), out=tmp_path / "page.html"))
    pictures = found.all("img")
    assert [picture["src"] for picture in pictures] == [f"data:image/png;base64,{png()}"] * 9
    assert pictures[0]["alt"] == "test image 0, a <cat>, sure 0.900" and pictures[0]["class"] == "tiny"
    assert pictures[4]["alt"] == "test image 11, a <cat>, answered as a dog, sure 0.910"
    wrong = re.findall(r'<li class="wrong">.*?</li>', found.source)
    assert len(wrong) == 1 and "<b>→ a dog</b>" in wrong[0]
    said = "With a budget of 22.6 million MACs, the first 3 test images that each exit answered, in the order of the"
    assert said in found.text and "none was chosen by hand" in found.text
    assert "its largest probability" in found.text and "exit=3 50.0 % of the images" in found.text


def test_large_pictures_are_smoothed_and_an_exit_may_have_none(tmp_path):
    table = made_up(measure="margin", calibrated=True)
    kept = [example | {"png": png(64)} for example in table.examples if example["subnet"] != "exit=2"]
    found = Page(report(replace(table, examples=kept), out=tmp_path / "page.html"))
    assert len(found.all("img")) == 6 and not any("class" in picture for picture in found.all("img"))
    assert "No image is answered here." in found.text
    assert "its largest probability minus the second, after calibration" in found.text


def test_older_files_have_no_images_and_untimed_ones_no_latency(tmp_path):
    path = tmp_path / "policies.json"
    made_up(latency=False, examples=False).save(path)
    document = json.loads(path.read_text())
    del document["examples"]
    path.write_text(json.dumps(document))
    found = Page(report(path))
    assert not found.all("img") and "chosen by hand" not in found.text and "pictured" not in found.text
    assert "latency" not in found.text.lower() and not list(tmp_path.glob("*latency*"))
    assert "answered by exit=1" in found.text


def test_nothing_is_loaded_from_elsewhere_and_charts_take_the_colours_of_the_page(tmp_path):
    found = Page(report(made_up(), out=tmp_path / "page.html"))
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|<link", re.sub(r"base64,[^\"]*", "", found.source))
    assert set(re.findall(r"var\(--(\w+)\)", found.source)) <= set(LIGHT) == set(DARK)
    assert "#" not in "".join(re.findall(r"<svg.*?</svg>", found.source, re.S))
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and all(picture["alt"] for picture in found.all("img"))


def test_images_of_the_charts_in_both_themes(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "write_png", WRITE_PNG)
    report(made_up(), out=tmp_path / "page.html")
    for variant, theme in (("light", LIGHT), ("dark", DARK)):
        image = Image.open(tmp_path / f"page-exit-shares-{variant}.png").convert("RGB")
        colors = {"#{:02x}{:02x}{:02x}".format(*color) for _, color in image.getcolors(1 << 24)}
        assert {theme["paper"], theme["step0"], theme["step11"]} <= colors


@pytest.mark.parametrize("count", [2, 3, 7, 10])
def test_shares_are_readable_in_both_themes(tmp_path, count):
    def luminance(color):
        parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    table = made_up(tuple(f"exit={number}" for number in range(1, count + 1)))
    drawn = charts(Page(report(table, out=tmp_path / "page.html")))["Where the images leave"]
    pairs = set(re.findall(r"fill:var\(--(step\d+)\)\"/></g>\n<text [^>]*fill:var\(--(\w+)\)", drawn))
    assert len({step for step, _ in pairs}) == count
    for theme in (LIGHT, DARK):
        for step, text in pairs:
            dark, light = sorted((luminance(theme[step]), luminance(theme[text])))
            assert (light + 0.05) / (dark + 0.05) > 4, (step, text)


def test_a_cascade_of_depths_pays_for_every_pass(tmp_path):
    """TTT costs 10, and FFF behind it 20 more, or 10 where it answers alone: the whole to compare with."""
    found = Page(report(made_up(CASCADE), out=tmp_path / "page.html"))
    assert found.headings == SECTIONS
    assert "can be answered by the first of TTT or FFF that is sure enough" in found.text
    assert "with 50 % more multiply-accumulates; TTT answers 50 % of the images" in found.text
    assert "15.0 instead of 10.0 million" in found.text and "mean latency, same budget" not in found.text
    assert "first 3 test images that each sub-network answered" in found.text


def test_the_depth_that_all_exits_share_is_said_once(tmp_path):
    found = Page(report(made_up(tuple(f"depth=TFF,{name}" for name in EXITS)), out=tmp_path / "page.html"))
    assert "All of this with depth=TFF" in found.text and ">exit=2</text>" in found.source
    assert "depth=TFF,exit=2" in found.text, "what can be typed stands in the facts"
    mixed = ("depth=TFF,exit=1", "depth=FFF,exit=2", "depth=FFF,exit=3")
    found = Page(report(made_up(mixed), out=tmp_path / "page.html"))
    assert "All of this with" not in found.text and "22.5 instead of 20.0 million" in found.text


def test_a_folder_of_policies_alone_and_one_with_a_table(folders, tmp_path):
    folder = tmp_path / "alone"
    folder.mkdir()
    made_up().save(folder / "policies.json")
    assert report(folder) == folder / "report.html"
    assert Page(folder / "report.html").headings == SECTIONS
    assert (folder / "exit-shares-light.png").exists()

    whole = folders.run(rounds=60)
    made_up(CASCADE).save(whole / "policies.json")
    found = Page(report(whole))
    assert found.headings == [
        "What accuracy costs",
        "What accuracy costs on average",
        "Who leaves where",
        "All budgets",
        "All sub-networks",
        "How the training went",
        "How it was measured",
        "How budgets were measured",
        "How it was trained",
    ]
    assert "The largest, FFF , is right on 84.0 %" in found.text and "first of TTT or FFF" in found.text
    assert found.text.count("is uncertain by about") == 1
    (whole / "policies.json").unlink()
    assert "Who leaves where" not in Page(report(whole)).headings
    assert not (whole / "exit-shares-light.png").exists(), "what is no longer there misleads"


def test_points_of_sub_networks_on_their_own_if_they_are_comparable(folders):
    folder = folders.run()
    made_up(CASCADE).save(folder / "policies.json")
    drawn = charts(Page(report(folder / "policies.json")))["Accuracy over average computation"]
    assert "<title>TTF on its own: 83.70 %, 31.8 million MACs</title><circle" in drawn
    assert "a sub-network on its own" in drawn
    made_up(CASCADE, images=500).save(folder / "policies.json")
    drawn = charts(Page(report(folder / "policies.json")))["Accuracy over average computation"]
    assert "on its own" not in drawn, "measured on other images"


def test_a_point_is_drawn_once(folders):
    own = [row | {"params_m": 1.0} for row in made_up().anytime]
    folder = folders.table("run", own)
    made_up().save(folder / "policies.json")
    drawn = charts(Page(report(folder / "policies.json")))["Accuracy over average computation"]
    assert "on its own" not in drawn and "all up to exit=1" in drawn


def test_one_budget_is_a_point(tmp_path):
    found = Page(report(made_up(budgets=1), out=tmp_path / "page.html"))
    assert len(found.table()) == 1 + 3
    assert "<polyline" in charts(found)["Accuracy over average computation"]


def test_a_table_that_lies_alone(folders, tmp_path):
    folder = folders.run()
    path = tmp_path / "net.pth.table.json"
    path.write_bytes((folder / "table.json").read_bytes())
    assert report(path) == tmp_path / "net.pth.table.html"
    found = Page(tmp_path / "net.pth.table.html")
    assert found.headings == ["What accuracy costs", "All sub-networks", "How it was measured"]
    assert "pliant pick net.pth --latency-ms" in found.text
    assert "pliant export net.pth" in found.text
    assert report(folder / "table.json") == folder / "report.html"


def test_an_exported_file_that_was_measured(folders, tmp_path):
    rows = [row | {"precision": "float32", "file_mb": 1.5} for row in folders.rows()]
    folder = folders.table("run", rows, files=["net.onnx"], runtime="ONNX Runtime 1.2")
    (folder / "table.json").rename(tmp_path / "net.onnx.table.json")
    (tmp_path / "net.onnx").write_bytes(b"not read")
    assert report(tmp_path / "net.onnx") == tmp_path / "net.onnx.table.html"
    found = Page(tmp_path / "net.onnx.table.html")
    assert all({"float32", "1.50"} <= set(line) for line in found.table())
    assert "ONNX Runtime 1.2" in found.text
    assert "pliant pick net.onnx --latency-ms" in found.text
    assert "pliant export" not in found.text, "it is a file already"
    assert "Choose for a budget:" in found.text and "and ship" not in found.text
