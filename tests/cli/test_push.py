"""`pliant push` writes a folder for the Hub; networks of the Hub are named where runs are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

COMMIT = "a" * 40


@pytest.fixture
def cached(cli, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A network that was fetched from the Hub before, which now cannot be reached."""
    packed = tmp_path / "packed"
    assert cli("push", run_folder, "me/net", "--folder", packed).status == 0
    repository = tmp_path / "cache" / "models--me--net"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(packed, repository / "snapshots" / COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return "hf:me/net"


def test_a_folder_is_written_and_nothing_pushed(cli, run_folder, tmp_path) -> None:
    result = cli("push", run_folder, "me/net", "--folder", tmp_path / "packed")
    assert result.status == 0
    assert result.out.strip() == str(tmp_path / "packed")
    assert "names no license" in result.err
    assert 'pliant.load("hf:me/net")' in (tmp_path / "packed" / "README.md").read_text()


def test_the_written_folder_is_a_run(cli, run_folder, tmp_path) -> None:
    cli("push", run_folder, "me/net", "--folder", tmp_path / "packed")
    assert "8 sub-networks" in cli("describe", tmp_path / "packed").out


def test_networks_of_the_hub_are_described_measured_and_picked(cli, cached, image_folder) -> None:
    assert "8 sub-networks" in cli("describe", cached).out
    measured = cli("measure", cached, "--data", image_folder, "--rounds", 1, "--json")
    assert measured.status == 0, measured.err
    assert {row["subnet"] for row in json.loads(measured.out)} >= {"TTT", "FFF"}
    assert Path("net.table.json").is_file()
    assert cli("pick", cached, "--gmacs", 1).status == 0


def test_what_cannot_be_is_one_line(refused, run_folder, cached, tmp_path) -> None:
    assert "--private: not with --folder" in refused(
        "push", run_folder, "me/net", "--private", "--folder", tmp_path / "new"
    )
    assert "'net' names no repository" in refused("push", run_folder, "net")
    assert "the push failed" in refused("push", run_folder, "me/net")
    assert "hf:me/other: the Hub cannot be reached" in refused("describe", "hf:me/other")
    assert "nowhere is no folder" in refused("push", tmp_path / "nowhere", "me/net")
