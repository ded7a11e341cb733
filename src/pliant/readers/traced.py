"""Reads any network from one example forward: runs of residual blocks that were seen to hand their input on."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pliant.core.anatomy import Anatomy, Block, Stage
from pliant.core.modes import undisturbed
from pliant.readers.parts import find_norms, is_norm, is_stochastic_depth
from pliant.readers.residual import shortcut_norms
from pliant.readers.runs import Runs
from pliant.readers.tracing import Call, record, tensors_in
from pliant.readers.trial import tried

__all__ = ["read"]

# A network of equal blocks is a column, to be divided into groups, from so many on.
COLUMN = 4


def read(model: nn.Module, example: Any) -> Anatomy:
    """Find the residual stages of a network by running it once; nothing in it is changed.

    A stage is a run of modules of one class, each of which takes what the one before it gave. Its blocks keep the
    shape, and have been seen to be residual; the first one may be neither. Where runs lie within blocks
    of other runs, the outermost count.

    Args:
        model: any network whose residual additions happen within modules.
        example: one input: a tensor, a tuple of arguments or a dictionary of keyword arguments.

    Raises:
        ValueError: it fails on the example, or has no such blocks; says what was looked at. Or a
            block is used more than once.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError(f"this {type(model).__name__} lies on the meta device; an example can only run with weights")
    with undisturbed(model):
        calls, output = record(model, example)
        runs = Runs(calls)
        segments = [run for run in runs.segments() if len(run) > 1 or runs.is_residual(run[0]) or _has_shortcut(run[0])]
        _refuse_shared_blocks(calls, segments)
        called = {call.path for call in calls}
        found = [_stage(model, segment, runs, called) for segment in segments]
        stages = [stage for stage in (tried(model, stage, example) for stage in found) if stage is not None]
    if not any(len(stage.blocks) > 1 for stage in stages):
        raise ValueError(f"this {type(model).__name__} has no residual blocks; {_looked_at(runs, found)}")
    head, num_classes, answers_by = _head(calls, output, stages[-1])
    return Anatomy(
        family=type(model).__name__,
        stages=tuple(stages),
        head=head,
        num_classes=num_classes,
        columnar=len(stages) == 1 and len(stages[0].blocks) >= COLUMN and stages[0].blocks[0].keeps_shape,
        traced=True,
        answers_by=answers_by,
    )


def _has_shortcut(call: Call) -> bool:
    return shortcut_norms(call, is_norm)[1]


def _refuse_shared_blocks(calls: list[Call], segments: list[list[Call]]) -> None:
    times = Counter(call.module for call in calls)
    for call in (call for segment in segments for call in segment):
        if times[call.module] > 1:
            raise ValueError(
                f"block {call.path!r} is used {times[call.module]} times in one pass: a shared block cannot be made "
                "skippable"
            )


def _stage(model: nn.Module, segment: list[Call], runs: Runs, called: set[str]) -> Stage:
    last = segment[-1].result
    assert last is not None
    channel_dim = _channel_dim(segment, last)
    outside = set() if runs.is_residual(segment[0]) else _norms_on_shortcut(model, segment)
    return Stage(
        path=runs.container_of(segment),
        channels=last.shape[channel_dim],
        blocks=tuple(_block(model, call, runs.is_residual(call), called - outside) for call in segment),
        channel_dim=channel_dim,
    )


def _norms_on_shortcut(model: nn.Module, segment: list[Call]) -> set[str]:
    """The norms on the shortcut of the first block: the others, which change no shape, have none of that name."""
    first, *others = segment
    usual = {path.removeprefix(f"{call.path}.") for call in others for path in find_norms(model, call.path)}
    return {f"{first.path}.{name}" for name in shortcut_norms(first, is_norm)[0] - usual}


def _block(model: nn.Module, call: Call, keeps_shape: bool, called: set[str]) -> Block:
    return Block(
        path=call.path,
        # Norms whose weights are used without calling them cannot have two sets.
        norms=tuple(path for path in find_norms(model, call.path) if path in called),
        keeps_shape=keeps_shape,
        stochastic_depth=tuple(
            f"{call.path}.{name}" for name, module in call.module.named_modules() if is_stochastic_depth(module)
        ),
        outputs=call.outputs,
    )


def _channel_dim(segment: list[Call], out: Tensor) -> int:
    """Which dimension of the stream are channels: 1 or -1, whichever the layers' sizes tell of."""
    if out.dim() < 3:
        return 1
    layers = [module for call in segment for module in call.module.modules()]
    second = any(_channels_in_second(layer) == out.shape[1] for layer in layers)
    last = any(_channels_in_last(layer) == out.shape[-1] for layer in layers)
    if second != last:
        return 1 if second else -1
    sizes = [size for call in segment for parameter in call.module.parameters() for size in parameter.shape]
    of_second, of_last = sizes.count(out.shape[1]), sizes.count(out.shape[-1])
    if of_second != of_last:
        return 1 if of_second > of_last else -1
    convolves = any(isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) for module in segment[-1].module.modules())
    return 1 if convolves else -1


def _channels_in_second(layer: nn.Module) -> int | None:
    """How many channels a layer gives that has them in the second dimension."""
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return layer.out_channels
    return layer.num_features if isinstance(layer, _BatchNorm) else None


def _channels_in_last(layer: nn.Module) -> int | None:
    """How many channels a layer gives that has them in the last dimension."""
    if isinstance(layer, nn.Linear):
        return layer.out_features
    return layer.normalized_shape[-1] if isinstance(layer, nn.LayerNorm) else None


def _head(calls: list[Call], output: Any, last: Stage) -> tuple[str, int, str]:
    """The last linear layer, if what it computes is what the network returns; and for what it answers."""
    returned = {id(tensor) for tensor in tensors_in(output)}
    call = next((call for call in reversed(calls) if isinstance(call.module, nn.Linear)), None)
    if call is None or id(call.output) not in returned:
        return "", 0, "input"
    assert isinstance(call.module, nn.Linear)
    positions = list(call.output.shape[1:-1])
    if not positions:
        return call.path, call.module.out_features, "input"
    stream = next(one.result for one in calls if one.path == last.blocks[-1].path)
    assert stream is not None
    same = positions == list(stream.movedim(last.channel_dim, -1).shape[1:-1])
    answers_by = "token" if same and len(positions) == 1 else "position"
    return call.path, call.module.out_features, answers_by


def _looked_at(runs: Runs, found: list[Stage]) -> str:
    """Say what was found instead of residual blocks."""
    if found:
        names = ", ".join(stage.path for stage in found)
        return f"those of {names} return values that the network cannot do without, or are counted by it"
    candidates = runs.described()
    if not candidates:
        return "no two modules of one class follow each other, the output of one being the input of the next"
    shown = ", ".join(candidates[:3]) + (", ..." if len(candidates) > 3 else "")
    count = f"{len(candidates)} run{'s' if len(candidates) > 1 else ''} of equal modules"
    return f"found {count}, none of which hands its input on: {shown}"
