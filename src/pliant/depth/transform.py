"""Turn the stages that a reader found into mandatory and skippable sub-paths, and back into a plain network."""

from __future__ import annotations

import math

from torch import nn

from pliant.core.anatomy import Anatomy, Stage
from pliant.core.subnet import SubNet, SubNetSpace
from pliant.core.surgery import remove_child, replace
from pliant.core.switch import Switch
from pliant.depth.config import Depth
from pliant.depth.modules import SkipAwareNorm, SkippableBlock

__all__ = ["adapt_", "bake_", "changed_paths", "mandatory_blocks", "subnet_space"]


def mandatory_blocks(anatomy: Anatomy, config: Depth) -> tuple[int, ...]:
    """Return for each stage how many of its blocks always run.

    Raises:
        ValueError: the config does not fit the stages, a block that would be skipped changes the
            shape of its input, or no stage has anything to skip.
    """
    lengths = [len(stage.blocks) for stage in anatomy.stages]
    if config.mandatory is None:
        mandatory = tuple(max(1, min(length - 1, math.ceil(length / 2))) for length in lengths)
    else:
        mandatory = config.mandatory
        if len(mandatory) != len(lengths) or any(m > n for m, n in zip(mandatory, lengths, strict=True)):
            raise ValueError(
                f"Depth.mandatory: got {list(mandatory)}, but the stages of this {anatomy.family} have {lengths} blocks"
            )
    for stage, count in zip(anatomy.stages, mandatory, strict=True):
        for block in stage.blocks[count:]:
            if not block.keeps_shape:
                raise ValueError(f"block {block.path!r} changes the shape of its input, so it cannot be skipped")
    if mandatory == tuple(lengths):
        raise ValueError(
            f"this {anatomy.family} has no skippable stage: its stages have {lengths} blocks of which "
            f"{list(mandatory)} are mandatory; a stage needs at least two blocks, as in ResNet-18 and deeper"
        )
    return mandatory


def subnet_space(anatomy: Anatomy, config: Depth) -> SubNetSpace:
    """Return the sub-networks that this config gives."""
    mandatory = mandatory_blocks(anatomy, config)
    counts = zip(anatomy.stages, mandatory, strict=True)
    return SubNetSpace(skippable_blocks=tuple(len(stage.blocks) - count for stage, count in counts))


def _norms(stage: Stage, mandatory: int) -> list[str]:
    """Paths of the norms that get a second set: all those of mandatory blocks, in stages that can skip."""
    if mandatory == len(stage.blocks):
        return []
    return [norm for block in stage.blocks[:mandatory] for norm in block.norms]


def changed_paths(anatomy: Anatomy, config: Depth) -> list[str]:
    """Paths of all modules that `adapt_` will change."""
    paths: list[str] = []
    for stage, count in zip(anatomy.stages, mandatory_blocks(anatomy, config), strict=True):
        paths += [block.path for block in stage.blocks[count:]]
        paths += _norms(stage, count) if config.skip_aware_norms else []
    return paths


def adapt_(model: nn.Module, anatomy: Anatomy, config: Depth, switch: Switch) -> None:
    """Make blocks skippable and norms skip-aware, in place."""
    for index, (stage, count) in enumerate(zip(anatomy.stages, mandatory_blocks(anatomy, config), strict=True)):
        for block in stage.blocks[count:]:
            SkippableBlock.make_(model.get_submodule(block.path), switch, index)
        if config.skip_aware_norms:
            for path in _norms(stage, count):
                SkipAwareNorm.make_(model.get_submodule(path), switch, index)


def bake_(model: nn.Module, anatomy: Anatomy, config: Depth, subnet: SubNet) -> None:
    """Leave in `model` only what `subnet` runs, as plain modules, in place."""
    stages = zip(anatomy.stages, mandatory_blocks(anatomy, config), subnet.depth, strict=True)
    for stage, count, skips in stages:
        if config.skip_aware_norms:
            for path in _norms(stage, count):
                norm = model.get_submodule(path)
                assert isinstance(norm, SkipAwareNorm)
                replace(model, path, norm.bake(skips=skips))
        for block in reversed(stage.blocks[count:]):
            SkippableBlock.unmake_(model.get_submodule(block.path))
            if skips:
                remove_child(model, block.path)
