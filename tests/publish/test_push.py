"""A network goes to the Hub and comes back; whatever prevents that is said in one line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from huggingface_hub import ModelCard, constants

import pliant
from pliant.checkpoint import CheckpointError

from .conftest import commit_of

FILES = {"README.md", "config.json", "model.safetensors", "table.json"}


@torch.no_grad()
def test_what_is_pushed_is_what_is_loaded(model, measured, hub) -> None:
    assert pliant.push(measured, "me/net") == "https://huggingface.co/me/net"
    assert set(hub.newest("me/net")) == FILES
    loaded = pliant.load("hf:me/net")
    images = torch.rand(2, 3, 32, 32)
    for subnet in ("TTT", "TFF"):
        assert torch.equal(loaded(images, subnet=subnet), model(images, subnet=subnet))


def test_without_a_connection_the_cache_serves(run, hub, monkeypatch) -> None:
    pliant.push(run, "me/net")
    pliant.load("hf:me/net")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert len(pliant.load("hf:me/net").subnets) == 8
    with pytest.raises(CheckpointError, match=r"hf:me/other: the Hub cannot be reached, and its cache .* no config"):
        pliant.load("hf:me/other")


def test_the_environment_variable_is_enough(run, hub, tmp_path) -> None:
    pliant.push(run, "me/net")
    pliant.load("hf:me/net")
    code = "import pliant; print(len(pliant.load('hf:me/net').subnets))"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "cache"), "PYTHONPATH": ":".join(sys.path)}
    told = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert told.stdout == "8\n"


def test_an_earlier_revision_is_loaded_by_its_commit(model, run, hub) -> None:
    pliant.push(run, "me/net")
    before = model.fc.weight.detach().clone()
    with torch.no_grad():
        model.fc.weight.zero_()
    pliant.save(model, run)
    pliant.push(run, "me/net")
    assert not pliant.load("hf:me/net").fc.weight.any()
    assert torch.equal(pliant.load("hf:me/net", revision=commit_of(1)).fc.weight, before)
    with pytest.raises(CheckpointError, match="hf:me/net at 'v9': the repository has no such branch, tag or commit"):
        pliant.load("hf:me/net", revision="v9")


def test_a_table_that_is_gone_is_gone_from_the_hub_too(measured, hub) -> None:
    pliant.push(measured, "me/net")
    (measured / "table.json").unlink()
    pliant.push(measured, "me/net")
    assert set(hub.newest("me/net")) == FILES - {"table.json"}
    assert "## Sub-networks" not in hub.newest("me/net")["README.md"].decode()


def test_a_packed_folder_is_pushed_as_it_was_edited(measured, hub, tmp_path) -> None:
    packed = pliant.pack(measured, "me/net", tmp_path / "packed")
    card = ModelCard.load(packed / "README.md")
    card.data.license = "mit"
    card.save(packed / "README.md")
    (packed / "report.html").write_text("a page with images of others")
    pliant.push(packed, "me/net")
    assert set(hub.newest("me/net")) == FILES
    assert ModelCard(hub.newest("me/net")["README.md"].decode()).data.license == "mit"
    (packed / "README.md").unlink()
    with pytest.raises(CheckpointError, match=r"packed has no README\.md"):
        pliant.push(packed, "me/net")


def test_private_stays_private(run, hub) -> None:
    pliant.push(run, "me/secret", private=True)
    pliant.push(run, "me/secret", private=True)
    assert hub.private == {"me/secret"}
    pliant.push(run, "me/net")
    before = len(hub.commits["me/net"])
    with pytest.raises(ValueError, match="me/net is there and public"):
        pliant.push(run, "me/net", private=True)
    assert len(hub.commits["me/net"]) == before


def test_a_repository_of_another_library_is_refused_before_its_weights_are_downloaded(hub) -> None:
    config = json.dumps({"architecture": "resnet18", "library_name": "timm"}).encode()
    hub.commits["timm/resnet18"] = [{"config.json": config, "model.safetensors": bytes(8)}]
    with pytest.raises(CheckpointError, match=r"hf:timm/resnet18: .*no library_name 'pliant'"):
        pliant.load("hf:timm/resnet18")
    assert hub.downloaded == ["config.json"]


def test_a_network_of_a_newer_version_is_refused(run, hub) -> None:
    pliant.push(run, "me/net")
    files = hub.newest("me/net")
    card = json.loads(files["config.json"])
    hub.commits["me/net"].append(files | {"config.json": json.dumps(card | {"format": 99}).encode()})
    with pytest.raises(CheckpointError, match=r"hf:me/net: .*format 99, from a newer version"):
        pliant.load("hf:me/net")


def test_what_is_not_on_the_hub_is_said(hub) -> None:
    hub.commits["me/empty"] = [{}]
    for name, message in {
        "hf:me/nothing": "hf:me/nothing: the Hub shows no such repository",
        "hf:me/empty": r"hf:me/empty: the repository has no config\.json",
        "hf:resnet": "'hf:resnet' names no repository: expected hf:USER/NAME",
        "hf:a/b/c": "'hf:a/b/c' names no repository",
    }.items():
        with pytest.raises(ValueError, match=message) as refused:
            pliant.load(name)
        assert "\n" not in str(refused.value)


def test_a_push_that_does_not_get_through_is_said(run, hub) -> None:
    hub.reachable = False
    with pytest.raises(ValueError, match=r"me/net: the push failed \(Name or service not known\)"):
        pliant.push(run, "me/net")
    with pytest.raises(ValueError, match="'net' names no repository"):
        pliant.push(run, "net")
    with pytest.raises(CheckpointError, match="nowhere is no folder"):
        pliant.push(run / "nowhere", "me/net")


def test_only_what_is_on_the_hub_has_revisions(run) -> None:
    with pytest.raises(CheckpointError, match="run has no revisions"):
        pliant.load(run, revision="main")
