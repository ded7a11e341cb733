"""The network of a training: made and given its first weights, and saved with what later commands need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from pliant import readers
from pliant.adapt import adapt_
from pliant.checkpoint import load, save
from pliant.core.adaptive import AdaptiveModule
from pliant.core.anatomy import Anatomy
from pliant.core.inputs import example_input
from pliant.core.weights import CheckpointError, first_three, misfits, shapes
from pliant.create import ModelSource
from pliant.extract import extract, original
from pliant.own import is_own
from pliant.train.processes import Place
from pliant.train.recipe import Recipe

if TYPE_CHECKING:
    from pliant.data import ImageData

__all__ = ["build_network", "save_network", "start_from_"]


def build_network(source: ModelSource, recipe: Recipe, place: Place, *, image_size: int, fresh: bool) -> nn.Module:
    """Make the network; weights are fetched only if it is `fresh`, else the checkpoint has them.

    One that is trained on its own starts from the weights that it would have in the adaptive network.
    """
    model = source.create(pretrained=recipe.model.pretrained and fresh)
    if recipe.sync_batchnorm and place.world_size > 1:
        if place.device.type != "cuda":
            raise ValueError(f"Recipe.sync_batchnorm: works on CUDA devices only, not on {place.device.type}")
        # Before the norms become skip-aware, which torch's conversion would undo.
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if recipe.adapt is not None:
        model = adapt_(model, *recipe.adapt.configs, example=example_input(model, image_size))
    if recipe.model.start_from is not None and fresh:
        start_from_(model, recipe.model.start_from, source)
    if recipe.only:
        model = extract(model, recipe.only)
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.train()


def start_from_(model: nn.Module, path: str, source: ModelSource) -> None:
    """Give a network the weights of one that was trained before, in place.

    A plain network's weights start both sets of the skip-aware norms; an adapted network's start each its own.

    Args:
        model: the network to train, adapted or plain.
        path: a run folder, or any file that `pliant.load` takes.
        source: how the network was made; which network a file is of need not be guessed then.

    Raises:
        CheckpointError: it cannot be loaded, or is of another architecture; names the first three keys.
    """
    # To name one's own network in a recipe is to let its code run.
    before = load(path, model=source if Path(path).is_file() or is_own(source.name) else None)
    expected = model
    if isinstance(model, AdaptiveModule) and not isinstance(before, AdaptiveModule):
        expected = original(model)
    weights = before.state_dict()
    problems = misfits(shapes(expected.state_dict()), shapes(weights))
    if problems:
        raise CheckpointError(f"cannot start from {path}, it is another network: {first_three(problems)}")
    model.load_state_dict(weights)


def _read_again(source: ModelSource, image_size: int) -> Anatomy:
    """What was found in the network that a plain one was extracted from."""
    original = source.create()
    return readers.read(original, example_input(original, image_size))


def save_network(model: nn.Module, source: ModelSource, recipe: Recipe, data: ImageData, out: Path) -> None:
    """Save a trained network in its run folder."""
    plain = not isinstance(model, AdaptiveModule)
    save(
        model,
        out,
        only=recipe.only or None,
        adapted_with=recipe.adapt.configs if plain and recipe.adapt else None,
        anatomy=_read_again(source, data.image_size) if plain and recipe.adapt else None,
        source=source,
        info={
            "data": data.name,
            "source": recipe.data.source,
            "class_names": list(data.class_names),
            "image_size": data.image_size,
            "mean": list(data.mean),
            "std": list(data.std),
            "val_fraction": recipe.data.val_fraction,
            "epochs": recipe.epochs,
            "seed": recipe.seed,
        },
    )
