"""The norm statistics of all widths after the training, taken so that an interrupted run goes on in the middle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from pliant.core.adaptive import as_adaptive
from pliant.core.fingerprint import fingerprint
from pliant.recalibrate import recalibrate_, training_images, with_own_statistics
from pliant.train.files import write_file
from pliant.train.phases import PhaseRun
from pliant.train.processes import Place, wait_for_all
from pliant.train.recipe import Recipe

if TYPE_CHECKING:
    from pliant.data import ImageData

__all__ = ["keeps_statistics", "recalibrate_network_", "refuse_recalibration"]


def keeps_statistics(model: nn.Module) -> bool:
    """Whether there are norm statistics for each width that could be taken anew."""
    try:
        return bool(with_own_statistics(as_adaptive(model, "train"), "train"))
    except ValueError:
        return False


def refuse_recalibration(model: nn.Module, recipe: Recipe, data: ImageData) -> None:
    """Find out before the training whether what is asked for cannot be done after it.

    Raises:
        ValueError: the norms keep no statistics for each width, or there are not so many training images.
    """
    if recipe.recalibrate:
        with_own_statistics(as_adaptive(model, "Recipe.recalibrate"), "Recipe.recalibrate")
        training_images(data, recipe.recalibrate)


def recalibrate_network_(
    model: nn.Module, run: PhaseRun, data: ImageData, place: Place, say: Callable[[str], None]
) -> None:
    """Give a trained network its norm statistics, in place, from the images that `pliant measure` would take.

    After every sub-network, what there is of them is kept in the run folder. A run that was killed goes on from there.
    Every process takes them all, from the same images.
    """
    batches = training_images(data, run.recipe.recalibrate, run.recipe.data.augment, place.device)
    trained = fingerprint(model)
    done = _take_up_(model, run.recalibration, trained)
    wait_for_all()  # else the first process might write while another has not read yet

    def keep(subnet: str, done: int, total: int) -> None:
        if place.rank == 0:
            _keep(model, run.recalibration, trained, done)
            say(f"norm statistics of {subnet}: {done} of {total}")

    recalibrate_(model, batches, done=done, on_progress=keep)


def _keep(model: nn.Module, path: Path, trained: str, done: int) -> None:
    buffers = {name: buffer.clone(memory_format=torch.contiguous_format) for name, buffer in model.named_buffers()}
    write_file(path, save(buffers, {"trained": trained, "done": str(done)}))


def _take_up_(model: nn.Module, path: Path, trained: str) -> int:
    """Take up what an interrupted run has kept of the same network; returns how many sub-networks were done."""
    try:
        with safe_open(path, "pt") as file:
            said = file.metadata() or {}
            if said.get("trained") != trained:
                return 0
            for name, buffer in model.named_buffers():
                buffer.copy_(file.get_tensor(name))
            return int(said["done"])
    except (FileNotFoundError, SafetensorError):
        return 0
