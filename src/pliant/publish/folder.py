"""`pack` and `push`: what is in a repository of the Hub, written into a folder and uploaded from one.

They are functions, not the methods of `huggingface_hub`'s `PyTorchModelHubMixin`. The mixin notes with what a class is
called and makes a model again by calling it so; an adapted model was made before pliant saw it, by a class of another
library, and is adapted afterwards. `from_pretrained` is asked of a class, and ours is known only when the card is read.
And networks of transformers have methods of these names, which write transformers' format and stay as they are.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from pliant.checkpoint import CARD, HUB_CARD, LIBRARY, WEIGHTS, CheckpointError, load, read_info
from pliant.core.files import write_text
from pliant.core.fingerprint import fingerprint
from pliant.create import ModelSource
from pliant.measure.table import Table
from pliant.own import is_own
from pliant.publish.readme import readme
from pliant.recalibrate import why_not
from pliant.repository import repository_id, upload

__all__ = ["pack", "push"]

README = "README.md"
TABLE = "table.json"
FILES = (HUB_CARD, WEIGHTS, README, TABLE)


def pack(
    run: str | os.PathLike[str],
    name: str,
    folder: str | os.PathLike[str],
    *,
    model: str | ModelSource | nn.Module | None = None,
) -> Path:
    """Write the folder that `push` uploads; no network connection is needed.

    It holds the weights, `config.json`, the measured table if there is one, and a README written from that table: a
    model card in the Hub's words. Loading it is loading the run: `pliant.load(folder)`. What only the author's machine
    knows stays behind: paths, logs, the state of the training.

    Args:
        run: a run folder, or another that `pliant.save` wrote; its `table.json` is what `pliant measure` wrote.
        name: the repository that the README tells people to load from, `USER/NAME`.
        folder: is made if it is not there.
        model: for a network of your own, its name or a new one, as for `pliant.load`.

    Returns:
        The folder.

    Raises:
        ValueError: there can be no such repository, the folder has files in it, or the table is of another network.
        CheckpointError: there is no network in `run`.
    """
    run, folder = Path(run), Path(folder)
    repository = repository_id(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there and has something in it; name a folder that is new or empty")
    _refuse_no_folder(run)
    network = load(run, model=model, dtype=torch.float32)  # as it was measured
    card = _portable(read_info(run))
    table = _measured(run, network)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / WEIGHTS, folder / WEIGHTS)
    if table is not None:
        table.info["model"] = _without_folder(table.info["model"])
        table.save(folder / TABLE)
    write_text(folder / README, readme(repository, card, network, table, _dtype_in(run, network)), "README")
    # Last: until it is there the folder holds no network, and half of one is not taken for a whole.
    write_text(folder / HUB_CARD, json.dumps({"library_name": LIBRARY} | card, indent=2) + "\n", "card")
    return folder


def push(
    run: str | os.PathLike[str],
    name: str,
    *,
    private: bool = False,
    model: str | ModelSource | nn.Module | None = None,
) -> str:
    """Upload a saved network to the Hugging Face Hub, from where `pliant.load("hf:USER/NAME")` takes it.

    Args:
        run: a run folder, or another that `pliant.save` wrote; or a folder that `pack` wrote, which is uploaded as it
            is, with all that was changed in its README.
        name: the repository, `USER/NAME`; it is made if it is not there.
        private: only its owners may see the repository.
        model: for a network of your own, as for `pack`.

    Returns:
        The address of the repository.

    Raises:
        ValueError: as `pack`; or the Hub cannot be reached or refuses it, for instance because nobody is logged in
            (`hf auth login`), or the repository is public although `private` is wanted.
        CheckpointError: there is no network in `run`.
    """
    run = Path(run)
    repository = repository_id(name)
    _refuse_no_folder(run)
    read_info(run)
    if (run / CARD).exists():
        with TemporaryDirectory() as temporary:
            packed = pack(run, repository, Path(temporary) / "packed", model=model)
            return upload(packed, repository, FILES, private=private)
    for file in (WEIGHTS, README):
        if not (run / file).is_file():
            raise CheckpointError(f"{run} has no {file}; pack the network again, or put it back")
    return upload(run, repository, FILES, private=private)


def _refuse_no_folder(run: Path) -> None:
    if not run.is_dir():
        raise CheckpointError(f"{run} is no folder; expected a run, or what pliant.save or pliant.pack wrote")


def _dtype_in(run: Path, network: nn.Module) -> torch.dtype:
    """The type in which the first weights of a saved network are, and so the type of its inputs."""
    name, parameter = next(network.named_parameters(), ("", None))
    if parameter is None:
        return torch.float32
    with safe_open(run / WEIGHTS, framework="pt") as tensors:
        return tensors.get_tensor(name).dtype


def _portable(card: dict[str, Any]) -> dict[str, Any]:
    """The card without what only its author's machine knows: where the data lie, and where the network's code."""
    info = {key: value for key, value in card["info"].items() if key != "source"}
    return card | {"model": card["model"] and _portable_source(card["model"]), "info": info}


def _portable_source(source: Mapping[str, Any]) -> dict[str, Any]:
    library, _, model = source["name"].partition(":")
    if library == "transformers" and Path(model).is_dir():
        raise ValueError(
            f"this network was made from {model}, a folder that others do not have; "
            "pliant.load it and pliant.save it once more, which finds a name that they have"
        )
    return {**source, "name": _without_folder(source["name"])}


def _without_folder(name: str) -> str:
    """What others call a network of one's own: they have its file somewhere else."""
    return Path(name).name if is_own(name) else name


def _measured(run: Path, network: nn.Module) -> Table | None:
    """The table of a run, without accuracies that the weights as they are loaded do not have."""
    path = run / TABLE
    if not path.is_file():
        return None
    table = Table.load(path)
    if table.info.get("fingerprint") != fingerprint(network):
        raise ValueError(f"{path} is not of the network in {run}: measure it anew, or take the table away")
    if table.info.get("recalibrated_on"):
        table.rows = [
            row if why_not(network, row["subnet"]) else {key: row[key] for key in row if not key.startswith("acc")}
            for row in table.rows
        ]
    return table
