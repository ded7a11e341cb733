"""Turn the stages that a reader found into mandatory and skippable sub-paths, and back into a plain network."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

from torch import nn

from pliant.core.anatomy import Anatomy, Block, Stage
from pliant.core.subnet import SubNet, SubNetSpace
from pliant.core.super_net_only import SuperNetOnly
from pliant.core.surgery import identity_for, names_of, remove_child, replace
from pliant.core.switch import Switch
from pliant.depth.config import Depth
from pliant.depth.modules import NormsCalled, SkipAwareNorm, SkippableBlock

__all__ = [
    "adapt_",
    "added_names",
    "bake_",
    "copied_norms",
    "grouped",
    "mandatory_blocks",
    "skipped_paths",
    "subnet_space",
]


def grouped(anatomy: Anatomy, config: Depth) -> Anatomy:
    """Return the anatomy with the column of a columnar network divided into groups as equal as can be.

    Raises:
        ValueError: the network has stages already, or fewer blocks than groups.
    """
    if not anatomy.columnar:
        if config.groups is not None:
            raise ValueError(
                f"Depth.groups: got {config.groups}, but this {anatomy.family} has {len(anatomy.stages)} stages of its "
                "own; groups are for columnar networks such as ViT"
            )
        return anatomy
    column = anatomy.stages[0]
    blocks = tuple(block for stage in anatomy.stages for block in stage.blocks)  # it may be in groups already
    length = len(blocks)
    groups = config.groups or max(1, min(4, length // 2))
    if groups > length:
        raise ValueError(f"Depth.groups: got {groups}, but this {anatomy.family} has {length} blocks")
    bounds = [math.ceil(length * index / groups) for index in range(groups + 1)]
    stages = tuple(dataclasses.replace(column, blocks=blocks[first:last]) for first, last in itertools.pairwise(bounds))
    return dataclasses.replace(anatomy, stages=stages)


def mandatory_blocks(anatomy: Anatomy, config: Depth) -> tuple[int, ...]:
    """Return for each stage how many of its blocks always run.

    Raises:
        ValueError: the config does not fit the stages, a block that would be skipped changes the
            shape of its input, or no stage has anything to skip.
    """
    lengths = [len(stage.blocks) for stage in anatomy.stages]
    mandatory = _usual_mandatory(anatomy, lengths) if config.mandatory is None else config.mandatory
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


def _usual_mandatory(anatomy: Anatomy, lengths: list[int]) -> tuple[int, ...]:
    share = 2 / 3 if anatomy.columnar else 1 / 2
    mandatory = [max(1, min(length - 1, math.ceil(length * share))) for length in lengths]
    if "Swin" in anatomy.family:
        # The paper's Swin (Table 1, 2.69 GFLOPs) skips nothing in its last stage, which suffers most from it.
        mandatory[-1] = lengths[-1]
    return tuple(mandatory)


def subnet_space(anatomy: Anatomy, config: Depth) -> SubNetSpace:
    """Return the sub-networks that this config gives."""
    mandatory = mandatory_blocks(anatomy, config)
    counts = zip(anatomy.stages, mandatory, strict=True)
    return SubNetSpace(skippable_blocks=tuple(len(stage.blocks) - count for stage, count in counts))


def _split(anatomy: Anatomy, config: Depth) -> Iterator[tuple[int, Stage, int]]:
    """Yield each stage that can skip: its number, itself, and its number of mandatory blocks."""
    for index, (stage, count) in enumerate(zip(anatomy.stages, mandatory_blocks(anatomy, config), strict=True)):
        if count < len(stage.blocks):
            yield index, stage, count


def _norms(stage: Stage, mandatory: int) -> list[str]:
    """Paths of the norms that get a second set: those of mandatory blocks, and those that lead to the stage."""
    return [*stage.norms, *(norm for block in stage.blocks[:mandatory] for norm in block.norms)]


def _stochastic_depth(anatomy: Anatomy) -> list[str]:
    return [path for stage in anatomy.stages for block in stage.blocks for path in block.stochastic_depth]


def _fast_layers(model: nn.Module, block: Block) -> list[nn.TransformerEncoderLayer]:
    modules = model.get_submodule(block.path).modules()
    return [module for module in modules if isinstance(module, nn.TransformerEncoderLayer)]


def added_names(anatomy: Anatomy, config: Depth) -> dict[str, set[str]]:
    """Return the path of every module that `adapt_` will change, with the names that it gets."""
    names = {path: names_of(SuperNetOnly) for path in _stochastic_depth(anatomy)}
    for _, stage, count in _split(anatomy, config):
        names |= {block.path: names_of(SkippableBlock) for block in stage.blocks[count:]}
        if config.skip_aware_norms:
            names |= {path: names_of(SkipAwareNorm, "skip") for path in _norms(stage, count)}
    return names


def copied_norms(anatomy: Anatomy, config: Depth | None) -> dict[str, str]:
    """By the path of each norm that gets a second set, where that is; none without a config."""
    if config is None or not config.skip_aware_norms:
        return {}
    return {path: f"{path}.skip" for _, stage, count in _split(anatomy, config) for path in _norms(stage, count)}


def adapt_(model: nn.Module, anatomy: Anatomy, config: Depth, switch: Switch) -> None:
    """Make blocks skippable and norms skip-aware, in place."""
    for path in _stochastic_depth(anatomy):
        SuperNetOnly.make_(model.get_submodule(path), switch)
    for index, stage, count in _split(anatomy, config):
        for block in stage.blocks[count:]:
            SkippableBlock.make_(model.get_submodule(block.path), switch, index, block.outputs)
        if config.skip_aware_norms:
            for path in _norms(stage, count):
                SkipAwareNorm.make_(model.get_submodule(path), switch, index)
            for block in stage.blocks[:count]:
                for layer in _fast_layers(model, block):
                    NormsCalled.make_(layer)


def skipped_paths(anatomy: Anatomy, config: Depth, subnet: SubNet) -> list[str]:
    """Paths of the blocks that `subnet` does not run, in order."""
    split = _split(anatomy, config)
    return [block.path for index, stage, count in split if subnet.depth[index] for block in stage.blocks[count:]]


def bake_(model: nn.Module, anatomy: Anatomy, config: Depth, subnet: SubNet) -> None:
    """Leave in `model` only what `subnet` runs, as plain modules, in place."""
    for path in _stochastic_depth(anatomy):
        SuperNetOnly.unmake_(model.get_submodule(path))
    skipped: list[Block] = []
    for index, stage, count in _split(anatomy, config):
        if config.skip_aware_norms:
            for block in stage.blocks[:count]:
                for layer in _fast_layers(model, block):
                    NormsCalled.unmake_(layer)
            for path in _norms(stage, count):
                norm = model.get_submodule(path)
                assert isinstance(norm, SkipAwareNorm)
                replace(model, path, norm.bake(skips=subnet.depth[index]))
        for block in stage.blocks[count:]:
            SkippableBlock.unmake_(model.get_submodule(block.path))
            skipped += [block] if subnet.depth[index] else []
    # From the last one on: blocks behind a removed one may change their names.
    for block in reversed(skipped):
        if block.keeps_place:
            replace(model, block.path, identity_for(model.get_submodule(block.path)))
        else:
            remove_child(model, block.path)
