"""The network of a training: made and given its first weights, and saved with what later commands need."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pliant import readers
from pliant.adapt import adapt_
from pliant.axes import Axes
from pliant.checkpoint import DifferentNetworkError, load, read_info, save, verify_saving
from pliant.core.adaptive import AdaptiveModule
from pliant.core.anatomy import Anatomy
from pliant.core.inputs import example_input
from pliant.core.modes import seeded
from pliant.core.subnet import SubNet
from pliant.core.weights import CheckpointError, first_three, misfits, shapes
from pliant.create import ModelSource
from pliant.exits.modules import Collaborating
from pliant.exits.transform import places
from pliant.extract import extract, original
from pliant.own import is_own
from pliant.train.processes import Place
from pliant.train.recipe import Recipe
from pliant.width.gates import gate_of

if TYPE_CHECKING:
    from pliant.data import ImageData

__all__ = ["build_network", "kept_statistics", "load_teacher", "save_network", "start_from_", "verify_network"]

# Widths in a message.
MOST_NAMED = 6


def build_network(source: ModelSource, recipe: Recipe, place: Place, *, image_size: int, fresh: bool) -> nn.Module:
    """Make the network; weights are fetched only if it is `fresh`, else the checkpoint has them.

    One that is trained on its own starts from the weights that it would have in the adaptive network.
    """
    model = source.create(pretrained=recipe.model.pretrained and fresh)
    if recipe.sync_batchnorm and place.world_size > 1:
        if place.device.type != "cuda":
            raise ValueError(f"Recipe.sync_batchnorm: works on CUDA devices only, not on {place.device.type}")
        # Before the norms become skip-aware, which the conversion would undo. By timm's, which converts the norms of
        # torch too: torch's takes away the activation that some of timm's norms have.
        from timm.layers.norm_act import convert_sync_batchnorm

        model = convert_sync_batchnorm(model)
    if recipe.adapt is not None:
        model = adapt_(model, *recipe.adapt.configs, example=example_input(model, image_size))
    if recipe.model.start_from is not None and fresh:
        new = start_from_(model, recipe.model.start_from, source)
        random = [name for name in new if ".exit.convolutions." in name]
        if random and recipe.learns == "classifiers":
            raise ValueError(
                f"Recipe.learns: got 'classifiers', but {recipe.model.start_from} has no {random[0]}, which would stay "
                "random; start from a network with these exits, or set adapt.exits.classifier to 'linear'"
            )
    if recipe.only:
        model = extract(model, recipe.only)
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    if recipe.learns == "classifiers":
        _let_classifiers_learn_(model)
    if recipe.learns == "gates":
        model.eval().requires_grad_(False)
        gate = gate_of(model)
        gate.choose.train().requires_grad_(True)
        gate.offsets.zero_()  # a budget is set for scores that are trained
    return model


def _let_classifiers_learn_(model: nn.Module) -> None:
    """Let the last layer of every exit learn, in place, and nothing else.

    All else is in eval mode: the statistics of its norms stay too. Where nothing learns, autograd records nothing, so
    that the backward pass begins behind it.
    """
    assert isinstance(model, AdaptiveModule)
    exits = Axes.of(model.configs).exits
    assert exits is not None
    model.eval().requires_grad_(False)
    for path in [f"{place.block.path}.exit.linear" for place in places(model.anatomy, exits)] + [model.anatomy.head]:
        model.get_submodule(path).train().requires_grad_(True)


def load_teacher(source: ModelSource, recipe: Recipe, place: Place) -> nn.Module | None:
    """Load the network that a training starts from once more, if the recipe wants it to teach; else return none."""
    if recipe.teacher != "frozen":
        return None
    assert recipe.model.start_from is not None
    teacher = _load_start(recipe.model.start_from, source).to(place.device)
    return teacher.to(memory_format=torch.channels_last) if recipe.channels_last else teacher  # type: ignore[call-overload]


def _load_start(path: str, source: ModelSource) -> nn.Module:
    # To name one's own network in a recipe is to let its code run. What is trained is in float32.
    is_file = Path(path).is_file()
    model = source if is_file or is_own(source.name) else None
    return load(path, model=model, dtype=None if is_file else torch.float32)


def start_from_(model: nn.Module, path: str, source: ModelSource) -> list[str]:
    """Give a network the weights of one that was trained before, in place.

    A plain network's weights start both sets of the skip-aware norms; an adapted network's start each its own. Exits
    that a plain network does not have keep their random weights.

    Where exits begin to collaborate, their linear layers keep what they make of the features. What reads the answer of
    the exit before is new, and a wider layer (`concatenate`) takes it up with weights of zero: the network begins with
    the answers that it gave. (The published code draws these layers anew.)

    Args:
        model: the network to train, adapted or plain.
        path: a run folder, or any file that `pliant.load` takes.
        source: how the network was made.

    Returns:
        The names of the weights that the other network did not have.

    Raises:
        CheckpointError: it cannot be loaded, or is of another architecture; names the first three keys.
    """
    before = _load_start(path, source)
    _refuse_other_widths(before, model, path)
    weights = before.state_dict()
    collaborating = _with_collaboration(weights, model)
    expected, given = model, collaborating
    if isinstance(model, AdaptiveModule) and not isinstance(before, AdaptiveModule):
        expected, given = original(model), weights
    problems = misfits(shapes(expected.state_dict()), shapes(given))
    if problems:
        raise CheckpointError(f"cannot start from {path}, it is another network: {first_three(problems)}")
    return model.load_state_dict(collaborating, strict=expected is model).missing_keys


def _refuse_other_widths(before: nn.Module, model: nn.Module, path: str) -> None:
    """Networks of several widths may have equal weights, of which other slices were trained."""
    if not isinstance(before, AdaptiveModule) or not isinstance(model, AdaptiveModule) or not before.space.widths:
        return
    theirs, ours = Axes.of(before.configs).width, Axes.of(model.configs).width
    for field in ("divisor", "kernels") if theirs and ours else ():
        was, now = getattr(theirs, field), getattr(ours, field)
        if was != now:
            raise CheckpointError(f"cannot start from {path}: Width.{field} was {was} there, and is {now}")
    strange = [width for width in model.space.widths if width not in before.space.widths]
    if strange:
        trained = ", ".join(str(SubNet(width=width)) for width in before.space.widths[:MOST_NAMED])
        more = " and others" if len(before.space.widths) > MOST_NAMED else ""
        raise CheckpointError(
            f"cannot start from {path}: {SubNet(width=strange[0])} was not trained there; its widths are "
            f"{trained}{more}"
        )


def _with_collaboration(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a network whose exits did not collaborate, with what is new where those of `model` do."""
    own = model.state_dict()
    complete = dict(weights)
    for path, layer in model.named_modules():
        prefix = f"{path}.collaboration."
        collaborated = any(name.startswith(prefix) for name in weights)
        if not isinstance(layer, Collaborating) or collaborated or f"{path}.weight" not in weights:
            continue
        complete |= {name: tensor for name, tensor in own.items() if name.startswith(prefix)}
        before, after = weights[f"{path}.weight"], own[f"{path}.weight"]
        if after.shape[1] == 2 * before.shape[1]:
            complete[f"{path}.weight"] = F.pad(before, (0, before.shape[1]))
    return complete


def _read_again(source: ModelSource, image_size: int) -> Anatomy:
    """What was found in the network that a plain one was extracted from."""
    original = source.create()
    return readers.read(original, example_input(original, image_size))


def kept_statistics(recipe: Recipe) -> int:
    """From how many images the norms had their statistics taken anew before a training that leaves them; 0 = never."""
    if recipe.learns == "all" or recipe.model.start_from is None:
        return 0
    try:
        return read_info(recipe.model.start_from)["info"].get("recalibrated", 0)
    except CheckpointError:  # a file of other people
        return 0


def verify_network(model: nn.Module, source: ModelSource, recipe: Recipe, data: ImageData) -> None:
    """Find out before a training whether its network can be saved, so that no trained network is refused.

    Raises:
        DifferentNetworkError: what would be loaded computes something else; says what to do.
    """
    with seeded(0):  # the training goes on with the random numbers that it would have without this
        verify_saving(model, **_how_to_save(model, source, recipe, data))


def save_network(model: nn.Module, source: ModelSource, recipe: Recipe, data: ImageData, out: Path) -> None:
    """Save a trained network in its run folder; one that cannot be verified any more is kept too, with a warning."""
    how = _how_to_save(model, source, recipe, data)
    try:
        with warnings.catch_warnings():
            # It was verified before the training, after which its output may not be finite.
            warnings.filterwarnings("ignore", message="save: not verified")
            save(model, out, **how)
    except DifferentNetworkError as error:
        warnings.warn(f"{out}: the trained network is kept, unverified; {error}", stacklevel=2)
        save(model, out, verify=False, **how)


def _how_to_save(model: nn.Module, source: ModelSource, recipe: Recipe, data: ImageData) -> dict[str, Any]:
    plain = not isinstance(model, AdaptiveModule)
    return {
        "only": recipe.only or None,
        "adapted_with": recipe.adapt.configs if plain and recipe.adapt else None,
        "anatomy": _read_again(source, data.image_size) if plain and recipe.adapt else None,
        "source": source,
        "info": {
            "data": data.name,
            "source": recipe.data.source,
            "class_names": list(data.class_names),
            "image_size": data.image_size,
            "mean": list(data.mean),
            "std": list(data.std),
            "val_fraction": recipe.data.val_fraction,
            "epochs": recipe.epochs,
            "seed": recipe.seed,
            "recalibrated": recipe.recalibrate or kept_statistics(recipe),
        },
    }
