"""Runs of equal modules in a recorded forward: which of them are residual blocks, and which only hold blocks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from torch import nn

from pliant.readers.residual import keeps_input, keeps_shape, mixes_channels
from pliant.readers.tracing import Call

__all__ = ["Runs"]


class Runs:
    """The calls of one forward, linked where the output of one is the input of the next of the same class.

    Args:
        calls: as they were recorded, the network's own first.
    """

    def __init__(self, calls: list[Call]) -> None:
        self._calls = [call for call in calls[1:] if call.stream is not None and call.result is not None]
        self._before = self._link()
        self._after = {before: call for call, before in self._before.items()}
        # To try a module costs time: only classes of which two follow each other can be blocks.
        kinds = {call.kind for call in self._before if not _is_layer(call.module)}
        self._residual = {call for call in self._calls if call.kind in kinds and keeps_input(call)}

    def _link(self) -> dict[Call, Call]:
        makers: dict[int, list[Call]] = {}
        before: dict[Call, Call] = {}
        for call in self._calls:  # in the order in which they began
            for maker in makers.get(id(call.stream), []):
                if maker.kind is call.kind and not call.within(maker):
                    before[call] = maker
            makers.setdefault(id(call.result), []).append(call)
        return before

    def is_residual(self, call: Call) -> bool:
        """Whether a block keeps shape and input, so that it can be skipped."""
        return call in self._residual

    def segments(self) -> list[list[Call]]:
        """Return the blocks, stage by stage: the first of a stage may be no residual one, all others are."""
        segments: list[list[Call]] = []
        ends: dict[Call, list[Call]] = {}
        for call in self._blocks:
            segment = ends.pop(self._before[call], None) if call in self._before and call in self._residual else None
            if segment is None:
                segment = []
                segments.append(segment)
            segment.append(call)
            ends[call] = segment
        return segments

    @cached_property
    def _blocks(self) -> list[Call]:
        """The outermost blocks that follow each other, and what belongs to them: in order."""
        chosen: list[Call] = []
        for call in self._calls:
            before, after = self._before.get(call), self._after.get(call)
            if after is not None and self._is_block(after):
                fits = self._is_block(call) or self._can_begin(call)
            else:
                fits = before is not None and self._is_block(call) and (before in chosen or self._can_begin(before))
            if fits and not any(call.within(other) for other in chosen):
                chosen.append(call)
        kinds = {call.kind for call in chosen}

        def belongs(call: Call) -> bool:
            if call.kind not in kinds or any(call.within(c) or c.within(call) for c in chosen):
                return False
            linked = call in self._before or call in self._after
            return self._is_block(call) or (linked and self._can_begin(call))

        return [call for call in self._calls if call in chosen or belongs(call)]

    def _is_block(self, call: Call) -> bool:
        return call in self._residual and not self._only_holds_blocks(call)

    def _can_begin(self, call: Call) -> bool:
        """Whether a module that is no residual block can be the first of a stage.

        A plain `nn.Sequential` may be anything; its class says nothing of it.
        """
        return call not in self._residual and call.kind is not nn.Sequential and mixes_channels(call.module)

    def _only_holds_blocks(self, call: Call) -> bool:
        """Whether a module adds nothing to a run of residual blocks in it: it is a stage, not a block.

        Two of the blocks have weights of equal shapes. Where none have, as where attention and MLP are modules
        with a shortcut each, they are parts of one block.
        """
        lasts = [inner for inner in self._residual if inner.within(call) and inner.result is call.result]
        return any(self._repeats(last, call) for last in lasts)

    def _repeats(self, last: Call, container: Call) -> bool:
        run = [last]
        while run[-1] in self._before and self._before[run[-1]].within(container):
            run.append(self._before[run[-1]])
        shapes = [[parameter.shape for parameter in call.module.parameters()] for call in run]
        return (
            run[-1].stream is container.stream
            and self._residual.issuperset(run)
            and any(shape in shapes[:index] for index, shape in enumerate(shapes))
        )

    def container_of(self, segment: list[Call]) -> str:
        """Return the path that the blocks of a segment have in common."""
        parts = [call.path.split(".")[:-1] for call in segment]
        common = parts[0]
        for other in parts[1:]:
            equal = [one == two for one, two in zip(common, other, strict=False)]
            common = common[: equal.index(False) if False in equal else len(equal)]
        return ".".join(common)

    def described(self) -> list[str]:
        """Say of each outermost run of modules with weights where it lies and of what class it is.

        Torch's own layers and sequentials are told of only where there is nothing else.
        """
        shown: list[Call] = []
        texts: list[str] = []
        runs = list(self._whole_runs())
        for run in [run for run in runs if not run[0].kind.__module__.startswith("torch.nn.")] or runs:
            if not any(run[0].within(other) for other in shown):
                shown += run
                reason = "" if any(map(keeps_shape, run)) else ", all of which change the shape"
                where = self.container_of(run) or run[0].path
                texts.append(f"{where} ({len(run)} {run[0].kind.__name__}{reason})")
        return texts

    def _whole_runs(self) -> Iterator[list[Call]]:
        for call in self._calls:
            if call not in self._before and call in self._after and mixes_channels(call.module):
                run = [call]
                while run[-1] in self._after:
                    run.append(self._after[run[-1]])
                yield run


def _is_layer(module: nn.Module) -> bool:
    """Whether a module is one of torch's own layers, none of which is residual by itself."""
    return type(module).__module__.startswith("torch.nn.") and next(module.children(), None) is None
