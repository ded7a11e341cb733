"""What was found in a network, as lines for people: where its stages are, and which of their blocks can be skipped."""

from __future__ import annotations

from torch import nn

from pliant.core.adaptive import AdaptiveModule, StageEnd
from pliant.core.anatomy import Stage
from pliant.depth.modules import NormsCalled, SkippableBlock
from pliant.exits.modules import ExitPoint
from pliant.width.modules import Sliced

__all__ = ["stage_lines"]


def stage_lines(model: nn.Module) -> list[str]:
    """Return a line for each stage of an adapted model; none of a plain one.

    A line says where the blocks of the stage are, their class, how many there are, how many of them always run,
    how many channels they have and which exits they lead to: `layer1.0-2: 3 Bottleneck (2 mandatory, 1 skippable),
    256 channels, exit 1`.
    """
    if not isinstance(model, AdaptiveModule):
        return []
    return [_line(model, number, stage) for number, stage in enumerate(model.anatomy.stages)]


def _line(model: AdaptiveModule, number: int, stage: Stage) -> str:
    kinds = dict.fromkeys(_plain_class(model.get_submodule(block.path)).__name__ for block in stage.blocks)
    can = ""
    if model.space.skippable_blocks:
        skippable = model.space.skippable_blocks[number]
        mandatory = len(stage.blocks) - skippable
        can = f" ({mandatory} mandatory, {skippable} skippable)" if skippable else " (nothing to skip)"
    ends = [str(exit_) for exit_, stages in enumerate(model.space.exit_stages, start=1) if stages == number + 1]
    exits = f", exit{'s' if len(ends) > 1 else ''} {', '.join(ends)}" if ends else ""
    return f"{_where(stage)}: {len(stage.blocks)} {' or '.join(kinds)}{can}, {stage.channels} channels{exits}"


def _where(stage: Stage) -> str:
    first, last = stage.blocks[0].path, stage.blocks[-1].path
    if first == last:
        return first
    parent, _, name = last.rpartition(".")
    return f"{first}-{name}" if first.rpartition(".")[0] == parent else f"{first} to {last}"


def _plain_class(block: nn.Module) -> type:
    """The class of a block before it was adapted."""
    kind = type(block)
    while issubclass(kind.__bases__[0], ExitPoint | StageEnd | SkippableBlock | NormsCalled | Sliced):
        kind = kind.__bases__[1]
    return kind
