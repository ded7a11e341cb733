"""`adapt_`: a reader finds the parts of a model, the wings change them in place. Read this first."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, TypeVar

from torch import Tensor, nn

from pliant import readers
from pliant.axes import Axes
from pliant.core.adaptive import Adaptation, AdaptiveModule, StageEnd
from pliant.core.anatomy import Anatomy, stated_anatomy, states_anatomy
from pliant.core.belonging import followers_of
from pliant.core.config import Config
from pliant.core.inputs import InputSpec, input_spec, spec_of_example
from pliant.core.stream import mask_arguments
from pliant.core.subnet import SubNetSpace
from pliant.core.surgery import merged, names_of, refuse_fixed, refuse_replaced_forwards, refuse_unfit
from pliant.core.switch import Switch
from pliant.core.wrapped import refuse_wrapped
from pliant.create import usual_image_size
from pliant.depth import transform as depth
from pliant.depth.config import Depth
from pliant.exits import transform as exits
from pliant.exits.config import Exits
from pliant.width import transform as width
from pliant.width.config import Width

__all__ = ["adapt_", "adapt_as_", "usual_config"]

ModelT = TypeVar("ModelT", bound=nn.Module)

# Of images, where nobody knows for which a network was made: channels do not depend on it.
UNKNOWN_SIZE = 224


def adapt_(model: ModelT, *configs: Config, example: Any = None) -> ModelT:
    """Give a model sub-networks, in place; its class, keys and full network stay what they were.

    The model becomes an `AdaptiveModule` too: `model(x, subnet="TTFF")`, `model.subnets`.

    Args:
        model: a model that one of the readers knows, one that describes itself with `anatomy()`, or any
            other together with an example.
        *configs: one for each way of being adaptive, such as `pliant.Depth()`.
        example: one input of the model: a tensor, a tuple of arguments or a dictionary of keyword arguments. A
            model that no reader knows is run on it once, to find its residual blocks. What the model takes is like it
            from then on: `measure`, `describe`, `export` and `save` make such inputs, and a saved model remembers it.

    Returns:
        The same model.

    Raises:
        ValueError: the model is not supported or already adapted, or a config does not fit it. The
            model is then unchanged.
    """
    refuse_fixed(model)
    refuse_wrapped(model, "adapt_")
    _refuse_adapted(model)
    _by_axis(configs)
    size = example.shape[-1] if isinstance(example, Tensor) else None
    adapt_as_(model, readers.read(model, example), *configs, size=size, example=spec_of_example(example))
    _say_what_cannot_skip(model)
    return model


def usual_config(model: nn.Module) -> Config:
    """Return how a model is adapted where nobody says it: by what it brings, exits or widths, else by its depth."""
    anatomy = stated_anatomy(model)
    if anatomy is not None:
        if any(block.exit for stage in anatomy.stages for block in stage.blocks):
            return Exits()
        if anatomy.widths:
            return Width()
    return Depth()


def adapt_as_(
    model: ModelT, anatomy: Anatomy, *configs: Config, size: int | None = None, example: Any = None
) -> ModelT:
    """Do as `adapt_`, with a model whose parts are known, and without a word.

    Args:
        model: as in `adapt_`.
        anatomy: of it.
        *configs: as in `adapt_`.
        size: pixels of a side, or tokens, of what the model takes; none = what it was made for.
        example: the result of `spec_of_example` for an input, or none.

    Raises:
        ValueError: as `adapt_`.
    """
    _refuse_adapted(model)
    refuse_fixed(model)
    wanted = _by_axis(configs)
    if wanted.width and wanted.exits:
        raise ValueError("adapt_: got pliant.Width and pliant.Exits, which one network cannot have together")
    if wanted.width and wanted.width.gate and wanted.depth:
        raise ValueError("adapt_: got pliant.Depth and a gate, which one network cannot have together")
    if wanted.width:
        # Channels are followed through a copy of the model, of which a replaced forward knows nothing.
        refuse_replaced_forwards(model, "adapt_", "may run the modules of this model in place of those of a copy")
    if wanted.width and not anatomy.channels:
        usual = size or usual_image_size(model) or UNKNOWN_SIZE
        channels = readers.channel_groups(model, anatomy, _valueless(example, model) or input_spec(model, usual))
        anatomy = dataclasses.replace(anatomy, channels=channels)
    if wanted.depth:
        anatomy = depth.grouped(anatomy, wanted.depth)
    masks = mask_arguments(model)
    # Everything that can be refused is refused before the first change.
    switch = Switch(_space(anatomy, wanted), chained=bool(wanted.exits and wanted.exits.collaboration != "none"))
    ends = [stage.blocks[-1].path for stage in anatomy.stages]
    if wanted.width:
        width.refuse_unfit(model, anatomy, wanted.width)
    changed = merged(
        {"": names_of(AdaptiveModule) - ({"anatomy"} if states_anatomy(model) else set())},
        depth.added_names(anatomy, wanted.depth) if wanted.depth else {},
        exits.added_names(anatomy, wanted.exits) if wanted.exits else {},
        width.added_names(model, anatomy, wanted.width) if wanted.width else {},
        {end: names_of(StageEnd) for end in ends},
    )
    refuse_unfit(model, changed, reserved=("subnet", "features", "exits"))
    if wanted.exits:
        exits.refuse_unfit(model, anatomy, wanted.exits)

    if wanted.depth:
        depth.adapt_(model, anatomy, wanted.depth, switch)
    if wanted.width:
        width.adapt_(model, anatomy, wanted.width, switch, depth.copied_norms(anatomy, wanted.depth))
    for stage, end in zip(anatomy.stages, ends, strict=True):
        StageEnd.make_(model.get_submodule(end), switch, stage.channel_dim)
    if wanted.exits:
        exits.adapt_(model, anatomy, wanted.exits, switch)
    AdaptiveModule.make_(model, Adaptation(anatomy, configs, switch, example, followers_of(model), size, masks))
    return model


def _valueless(example: Any, model: nn.Module) -> InputSpec | None:
    """Return what a model takes in a pass without values: no padding mask, whose values it would read."""
    masks = mask_arguments(model)
    if isinstance(example, dict):
        return InputSpec({name: part for name, part in example.items() if name not in masks})
    if isinstance(example, tuple):
        return InputSpec(tuple(None if place in masks.values() else part for place, part in enumerate(example)))
    return None if example is None else InputSpec(example)


def _space(anatomy: Anatomy, wanted: Axes) -> SubNetSpace:
    """The product of what the wings give."""
    space = width.subnet_space(anatomy, wanted.width) if wanted.width else SubNetSpace()
    if wanted.depth:
        skippable = depth.subnet_space(anatomy, wanted.depth).skippable_blocks
        space = dataclasses.replace(space, skippable_blocks=skippable)
    if wanted.exits:
        space = dataclasses.replace(space, exit_stages=exits.exit_stages(anatomy, wanted.exits))
    return space


def _refuse_adapted(model: nn.Module) -> None:
    if isinstance(model, AdaptiveModule):
        raise ValueError(f"this {type(model).__name__} is adapted already, with {_names(model.configs)}")


def _by_axis(configs: tuple[Config, ...]) -> Axes:
    try:
        return Axes.of(configs)
    except ValueError as error:
        raise ValueError(f"adapt_: {error}") from None


def _names(configs: tuple[Config, ...]) -> str:
    return ", ".join(map(repr, configs))


def _say_what_cannot_skip(model: nn.Module) -> None:
    """Warn of stages of one block, unless somebody said how many blocks are mandatory."""
    assert isinstance(model, AdaptiveModule)
    wanted = Axes.of(model.configs).depth
    if wanted is None or wanted.mandatory is not None:
        return
    single = [
        f"{number} ({stage.blocks[0].path})"
        for number, stage in enumerate(model.anatomy.stages, start=1)
        if len(stage.blocks) == 1
    ]
    if single:
        which = f"stages {', '.join(single)} have" if len(single) > 1 else f"stage {single[0]} has"
        warnings.warn(f"{which} one block, and nothing to skip; the others go on", stacklevel=3)
