"""A saved network, a measured one, and a Hub that answers the Hub's own client without a network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils._http import default_client_factory, hf_request_event_hook

import pliant
from pliant.core.fingerprint import fingerprint
from pliant.measure.table import Table


@pytest.fixture
def model():
    return pliant.adapt_(pliant.create_model("pliant:resnet20", num_classes=10), pliant.Depth()).eval()


@pytest.fixture
def run(model, tmp_path: Path) -> Path:
    """A run folder, with a file that is nobody else's business."""
    info = {
        "data": "cifar10",
        "source": "/path/of/mine/cifar10",
        "class_names": [str(number) for number in range(10)],
        "image_size": 32,
        "mean": [0.49, 0.48, 0.45],
        "std": [0.25, 0.24, 0.26],
    }
    folder = pliant.save(model, tmp_path / "run", info=info)
    (folder / "last.ckpt").write_bytes(b"private")
    return folder


@pytest.fixture
def measured(model, run: Path) -> Path:
    """A run folder with a table in which one sub-network has no accuracy."""
    write_table(model, run)
    return run


def write_table(model: torch.nn.Module, run: Path, **info: object) -> None:
    rows = [
        {"subnet": "TTT", "gmacs": 0.026, "acc1": 81.256, "latency_ms": 2.5},
        {"subnet": "FTT", "gmacs": 0.031, "latency_ms": 3.0},
        {"subnet": "FFF", "gmacs": 0.041, "acc1": 84.5, "latency_ms": 4.25},
    ]
    circumstances = {
        "model": "pliant:resnet20",
        "fingerprint": fingerprint(model),
        "data": "cifar10",
        "split": "test",
        "images": 10000,
        "rounds": 30,
        "threads": 1,
        "batch_size": 1,
        "dtype": "float32",
        "device": "cpu",
        "cpu": "a processor",
        "versions": {"pliant": "0.1.0", "torch": "2.14.1"},
        "date": "2026-01-02T03:04:05+00:00",
    }
    Table(rows, circumstances | info).save(run / "table.json")


class Hub:
    """Repositories as the Hub has them: every commit is kept, `main` is the newest."""

    def __init__(self) -> None:
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.downloaded: list[str] = []
        self.reachable = True

    def newest(self, repository: str) -> dict[str, bytes]:
        return self.commits[repository][-1]

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        if not self.reachable:
            raise httpx2.ConnectError("Name or service not known", request=request)
        path = request.url.path
        if path == "/api/repos/create":
            return self._create(json.loads(request.content))
        if path == "/api/validate-yaml":
            return httpx2.Response(200, json={"warnings": [], "errors": []})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w+))?(?:/.*)?", path):
            return self._api(match[1], match[2], request)
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        assert match, path
        return self._file(match[1], match[2], match[3], request)

    def _create(self, wanted: dict[str, str]) -> httpx2.Response:
        repository = f"{wanted['organization']}/{wanted['name']}"
        known = repository in self.commits
        if not known:
            self.commits[repository] = [{}]
            if wanted.get("visibility") == "private":
                self.private.add(repository)
        return httpx2.Response(409 if known else 200, json={"url": f"{constants.ENDPOINT}/{repository}"})

    def _api(self, repository: str, what: str | None, request: httpx2.Request) -> httpx2.Response:
        files = self.newest(repository)
        if what == "preupload":
            named = [file["path"] for file in json.loads(request.content)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in named]
            return httpx2.Response(200, json={"files": modes})
        if what == "tree":
            tree = [{"type": "file", "path": name, "size": len(files[name]), "oid": "0" * 40} for name in files]
            return httpx2.Response(200, json=tree)
        if what == "commit":
            self._commit(repository, [json.loads(line) for line in request.content.splitlines()])
            sha = commit_of(len(self.commits[repository]) - 1)
            url = f"{constants.ENDPOINT}/{repository}/commit/{sha}"
            return httpx2.Response(200, json={"commitUrl": url, "commitOid": sha})
        return httpx2.Response(200, json={"id": repository, "private": repository in self.private})

    def _commit(self, repository: str, changes: list[dict]) -> None:
        files = dict(self.newest(repository))
        for change in changes:
            if change["key"] == "file":
                files[change["value"]["path"]] = base64.b64decode(change["value"]["content"])
            if change["key"] == "deletedFile":
                del files[change["value"]["path"]]
        self.commits[repository].append(files)

    def _file(self, repository: str, revision: str, name: str, request: httpx2.Request) -> httpx2.Response:
        if repository not in self.commits:
            return httpx2.Response(404, headers={"X-Error-Code": "RepoNotFound"})
        commits = self.commits[repository]
        known = {commit_of(number): number for number in range(len(commits))} | {"main": len(commits) - 1}
        if revision not in known:
            return httpx2.Response(404, headers={"X-Error-Code": "RevisionNotFound"})
        content = commits[known[revision]].get(name)
        sha = commit_of(known[revision])
        if content is None:
            return httpx2.Response(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
        headers = {"ETag": hashlib.sha256(content).hexdigest(), "X-Repo-Commit": sha}
        if request.method == "HEAD":
            return httpx2.Response(200, headers=headers | {"Content-Length": str(len(content))})
        self.downloaded.append(name)
        return httpx2.Response(200, headers=headers, content=content)


def commit_of(number: int) -> str:
    return f"{number:040x}"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    fake = Hub()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    huggingface_hub.set_client_factory(
        lambda: httpx2.Client(
            transport=httpx2.MockTransport(fake.answer), event_hooks={"request": [hf_request_event_hook]}
        )
    )
    yield fake
    huggingface_hub.set_client_factory(default_client_factory)
