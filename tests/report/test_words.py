"""Sentences say what the table says."""

import pytest

from pliant.report import listing, words
from pliant.report.content import read_run
from pliant.report.scatter import costs_of


def read(folders, rows, baselines=(), recipe=True, **info):
    folder = folders.table("run", rows, **info)
    if recipe:
        folders.recipe(folder)
    return read_run(folder, baselines)


def summary(run):
    return words.summary(run, costs_of(run.rows))


def pair(largest, smallest):
    return [
        {"subnet": "TTT", "gmacs": 2.5, "acc1": smallest, "latency_ms": 20.0},
        {"subnet": "FFF", "gmacs": 4.0, "acc1": largest, "latency_ms": 30.0},
    ]


@pytest.mark.parametrize(
    ("largest", "smallest", "said"),
    [
        (84.0, 83.2, "at 0.8 points less accuracy."),
        (83.2, 84.0, "at 0.8 points more accuracy."),
        (84.0, 84.04, "at the same accuracy."),
    ],
)
def test_what_the_smallest_saves(folders, largest, smallest, said):
    assert summary(read(folders, pair(largest, smallest))) == (
        f"One set of weights holds 2 networks. The largest, `FFF`, is right on {largest:.1f} % of the test images. "
        f"The smallest, `TTT`, runs 38 % fewer MACs and takes 33 % less time {said}"
    )


def test_a_slower_base_net_is_not_called_faster(folders):
    rows = pair(84.0, 83.2)
    rows[0]["latency_ms"] = 33.0
    assert "takes 10 % more time" in summary(read(folders, rows))
    figures = words.key_figures(read(folders, rows), costs_of(rows))
    assert [figure["value"] for figure in figures] == ["84.0 %", "83.2 %", "−38 %", "+10 %"]
    assert figures[2]["note"] == "2.50 instead of 4.00 billion" and figures[3]["note"] == "33.0 instead of 30.0 ms"


def test_validation_images_are_called_so(folders):
    assert "of the validation images" in summary(read(folders, pair(84.0, 83.0), split="val"))


def test_untrained_subnets(folders):
    run = read(folders, folders.rows())
    assert run.trained == {"TTT", "FFF"}
    assert words.details(run) == (
        "Only `TTT` and `FFF` were trained; the 6 others share their weights and reach 82.7 to 83.7 % "
        "without training of their own."
    )


def test_unknown_training_is_not_guessed(folders):
    run = read(folders, folders.rows(), recipe=False)
    assert run.trained is None and words.details(run) == ""


def test_uncertainty_is_the_binomial_one(folders):
    rows = pair(80.0, 79.0)
    assert "±0.8 points" in words.uncertainty(read(folders, rows))  # 1.96 * sqrt(0.8 * 0.2 / 10000)
    assert "±7.8 points" in words.uncertainty(read(folders, rows, images=100))
    assert words.uncertainty(read(folders, rows, images=None)) == ""


def test_a_restless_machine_is_mentioned(folders):
    rows = folders.rows()
    assert words.scatter_of_latency(read(folders, rows).rows) == ""
    rows[3]["latency_ms_p95"] = 3 * rows[3]["latency_ms"]
    assert "up to 3.0 times the median" in words.scatter_of_latency(read(folders, rows).rows)


def test_the_commands_work_on_this_table(folders):
    run = read(folders, folders.rows())
    pick, export = words.commands(run)
    assert pick == "pliant pick run --latency-ms 1.6" and export.endswith("net.onnx --subnet TTF")
    assert run.table.pick(latency_ms=1.6)["subnet"] == "TTF"


def test_what_was_measured_with_statistics_taken_anew_is_shipped_with_them(folders):
    run = read(folders, folders.rows(), recalibrated_on=5120)
    assert words.commands(run)[1] == "pliant export run net.onnx --subnet TTF --recalibrate 5120"
    assert words.details(run).endswith("without training of their own, with norm statistics of their own.")
    assert ("Norms", "statistics of untrained sub-networks from 5,120 training images") in listing.measured_how(run)
    # Without accuracies the smallest is shipped, which was trained.
    rows = [{key: value for key, value in row.items() if key != "acc1"} for row in folders.rows()]
    (export,) = words.commands(read(folders, rows, recalibrated_on=5120))
    assert export == "pliant export run net.onnx --subnet TTT"


def test_small_networks_count_in_millions(folders):
    small, large = costs_of(folders.rows())["gmacs"], costs_of(pair(80, 79))["gmacs"]
    assert small.say({"gmacs": 0.0408}) == "40.8 million MACs" and large.say({"gmacs": 4.089}) == "4.09 billion MACs"
