"""What cannot be reported is said in one line."""

import pytest

from pliant.report import report


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
