"""What was found in a network, as lines for people: where its stages are, and which of their blocks can be skipped."""

from __future__ import annotations

from torch import nn

from pliant.core.adaptive import AdaptiveModule, StageEnd
from pliant.core.anatomy import Stage
from pliant.depth.modules import NormsCalled, SkippableBlock
from pliant.exits.modules import ExitPoint

__all__ = ["stage_lines"]


def stage_lines(model: nn.Module) -> list[str]:
    """Return a line for each stage of an adapted model; none of a plain one.

    A line says where the blocks of the stage are, their class, how many there are, how many of them always run,
    and how many channels they have: `layer1.0-2: 3 Bottleneck (2 mandatory, 1 skippable), 256 channels`.
    """
    if not isinstance(model, AdaptiveModule):
        return []
    skippable = model.space.skippable_blocks or (0,) * len(model.anatomy.stages)
    return [_line(model, stage, count) for stage, count in zip(model.anatomy.stages, skippable, strict=True)]


def _line(model: nn.Module, stage: Stage, skippable: int) -> str:
    kinds = dict.fromkeys(_plain_class(model.get_submodule(block.path)).__name__ for block in stage.blocks)
    mandatory = len(stage.blocks) - skippable
    can = f"{mandatory} mandatory, {skippable} skippable" if skippable else "nothing to skip"
    return f"{_where(stage)}: {len(stage.blocks)} {' or '.join(kinds)} ({can}), {stage.channels} channels"


def _where(stage: Stage) -> str:
    first, last = stage.blocks[0].path, stage.blocks[-1].path
    if first == last:
        return first
    parent, _, name = last.rpartition(".")
    return f"{first}-{name}" if first.rpartition(".")[0] == parent else f"{first} to {last}"


def _plain_class(block: nn.Module) -> type:
    """The class of a block before it was adapted."""
    kind = type(block)
    while kind.__mro__[1] in (ExitPoint, StageEnd, SkippableBlock, NormsCalled):
        kind = kind.__mro__[2]
    return kind
