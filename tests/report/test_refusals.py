"""What cannot be reported is said in one line."""

import json

import pytest

from pliant.report import report

from .test_policies import made_up


def refused(match, *arguments, **options):
    with pytest.raises(ValueError, match=match) as failure:
        report(*arguments, **options)
    assert "\n" not in str(failure.value)


def test_no_folder(tmp_path):
    refused("nowhere: no such folder", tmp_path / "nowhere")


def test_no_table(tmp_path):
    refused(r"has no table.json; make it with: pliant measure .* --data DATA", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_empty_table(folders):
    refused("table.json has no rows; make it anew with: pliant measure", folders.table("run", []))


def test_damaged_table(folders):
    folder = folders.run()
    (folder / "table.json").write_text('{"rows": [')
    refused("table.json: not a table", folder)


@pytest.mark.parametrize(
    "text", ["epoch,train_loss\n1,abc\n", "epoch,train_loss\n1,2,3\n", "train_loss\n2.5\n", "epoch\n\0\n\xff\n"]
)
def test_damaged_metrics(folders, text):
    folder = folders.run()
    (folder / "metrics.csv").write_bytes(text.encode("latin-1"))
    refused("metrics.csv is damaged", folder)


def test_damaged_recipe_and_card(folders):
    folder = folders.run()
    (folder / "recipe.yaml").write_text("epochs: many")
    refused("recipe.yaml", folder)
    folders.recipe(folder)
    (folder / "pliant.json").write_text("{")
    refused("pliant.json is truncated or corrupt", folder)


def test_baselines_that_cannot_be_compared(folders, tmp_path):
    run = folders.run()
    refused("its table has 8 rows; expected one network", run, baselines=[folders.run("other")])
    refused("data 'cifar100', but the run on 'cifar10'", run, baselines=[folders.alone("a", "FFF", 1, data="cifar100")])
    refused("split 'val', but the run on 'test'", run, baselines=[folders.alone("b", "FFF", 1, split="val")])
    refused("has no table.json", run, baselines=[tmp_path])
    assert not (run / "report.html").exists()


def test_files_that_nobody_measured(tmp_path):
    path = tmp_path / "notes.json"
    for text in ("{", "[]", '{"rows": []}', "3", "a picture"):
        path.write_text(text)
        refused(r"notes\.json is neither a table nor policies", path)
    path.write_bytes(b"\xff\xfe\x00")
    refused(r"notes\.json: no measurement can be read here", path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("rows", [], "0 rows and 3 sub-networks; expected one row or more"),
        ("anytime", [], "5 rows and 0 sub-networks"),
        ("rows", [{"budget": 1}], "a row of rows has no number 'gmacs'"),
        ("rows", [7], "a row of rows has no number 'budget'"),
        ("rows", [{"budget": 1, "gmacs": 1, "acc1": 1, "shares": {"exit=1": 1}}], "no number 'exit=2'"),
        ("anytime", [{"gmacs": 1, "acc1": 1}] * 2, "a row of anytime does not name its sub-network"),
        ("examples", [{"row": 0, "index": 0, "certainty": 1}], "lacks subnet, label, predicted, png"),
        ("examples", ["a cat"], "a row of examples has no number 'row'"),
    ],
)
def test_policies_that_lack_something(tmp_path, part, value, words):
    path = tmp_path / "policies.json"
    made_up().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {part: value}))
    refused(words, path)


def test_an_image_of_a_row_that_does_not_exist(tmp_path):
    table = made_up()
    table.examples[0]["row"] = 5
    refused("an image of examples lacks a row that exists", table, out=tmp_path / "page.html")


def test_policies_need_a_place_and_no_baselines(folders, tmp_path):
    refused("say with out= where the page goes", made_up())
    refused("baselines are compared with table.json", made_up(), baselines=[folders.run()], out=tmp_path / "a.html")
    made_up().save(tmp_path / "policies.json")
    refused("baselines are compared with table.json", tmp_path / "policies.json", baselines=[folders.run()])
    assert not list(tmp_path.glob("*.html"))
