"""`adapt_`: a reader finds the parts of a model, the wings change them in place. Read this first."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from pliant import readers
from pliant.core.adaptive import Adaptation, AdaptiveModule, StageEnd
from pliant.core.config import Config
from pliant.core.surgery import refuse_shared
from pliant.core.switch import Switch
from pliant.depth import transform as depth
from pliant.depth.config import Depth

__all__ = ["adapt_"]

ModelT = TypeVar("ModelT", bound=nn.Module)


def adapt_(model: ModelT, *configs: Config) -> ModelT:
    """Give a model sub-networks, in place; its class, keys and full network stay what they were.

    The model becomes an `AdaptiveModule` too: `model(x, subnet="TTFF")`, `model.subnets`.

    Args:
        model: a model that one of the readers knows, or one that describes itself with `anatomy()`.
        *configs: one for each way of being adaptive, such as `pliant.Depth()`.

    Returns:
        The same model.

    Raises:
        ValueError: the model is not supported or already adapted, or a config does not fit it. The
            model is then unchanged.
    """
    if isinstance(model, AdaptiveModule):
        raise ValueError(f"this {type(model).__name__} is adapted already, with {_names(model.configs)}")
    if len(configs) != 1 or not isinstance(configs[0], Depth):
        raise ValueError(f"adapt_: got {_names(configs) or 'no config'}, expected one of: pliant.Depth(...)")
    config = configs[0]
    anatomy = depth.grouped(readers.read(model), config)
    # Everything that can be refused is refused before the first change.
    switch = Switch(depth.subnet_space(anatomy, config))
    refuse_shared(model, depth.changed_paths(anatomy, config))

    depth.adapt_(model, anatomy, config, switch)
    for stage in anatomy.stages:
        StageEnd.make_(model.get_submodule(stage.blocks[-1].path), switch, stage.channel_dim)
    AdaptiveModule.make_(model, Adaptation(anatomy=anatomy, configs=configs, switch=switch))
    return model


def _names(configs: tuple[Config, ...]) -> str:
    return ", ".join(map(repr, configs))
