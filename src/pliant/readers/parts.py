"""What all readers share: find the norms, stochastic depth and channels of blocks, and put stages together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pliant.core.anatomy import Block, Stage

__all__ = [
    "child_paths",
    "find_norms",
    "first_changes_shape",
    "fold_single_ends",
    "num_outputs",
    "path_of",
    "read_blocks",
    "read_stage",
    "split_flat",
]

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
TORCH_NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm: torch's own, or one that a library wrote and named so."""
    if isinstance(module, TORCH_NORMS):
        return True
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return "norm" in type(module).__name__.lower() and bool(own) and all(tensor.dim() <= 1 for tensor in own)


def is_stochastic_depth(module: nn.Module) -> bool:
    """Whether a module drops residual branches in training; the libraries call it by two names."""
    return type(module).__name__.endswith(("StochasticDepth", "DropPath"))


def child_paths(model: nn.Module, path: str) -> list[str]:
    """Return the paths of the children of `path`, in order."""
    return [f"{path}.{name}" for name, _ in model.get_submodule(path).named_children()]


def path_of(model: nn.Module, part: nn.Module) -> str:
    """Return the path of a module that is part of `model`."""
    return next(path for path, module in model.named_modules() if module is part)


def find_norms(model: nn.Module, path: str, outside: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the paths of all norms at or below `path`, except those below the children named `outside`."""
    root = model.get_submodule(path)
    return tuple(
        f"{path}.{name}" if name else path
        for name, module in root.named_modules()
        if is_norm(module) and name.partition(".")[0] not in outside
    )


def read_blocks(
    model: nn.Module,
    path: str,
    keeps_shape: Callable[[nn.Module], bool] = lambda block: True,
    shortcuts: tuple[str, ...] = (),
) -> tuple[Block, ...]:
    """Describe all children of `path` as residual blocks.

    Args:
        model: the network.
        path: the module that holds the blocks.
        keeps_shape: whether a block can be skipped.
        shortcuts: names of children of a block that lie on its shortcut.

    Raises:
        ValueError: another library has put a wrapper there, whose children are no blocks.
    """
    container = model.get_submodule(path)
    if not (isinstance(container, CONTAINERS) or _is_of_same_library(container, model)):
        raise ValueError(
            f"adapt_: module {path!r} is a {type(container).__name__} of {type(container).__module__}, expected the "
            "network's own blocks; take the wrapper off first, or adapt the model before it is wrapped"
        )
    return tuple(
        Block(
            path=f"{path}.{name}",
            norms=find_norms(model, f"{path}.{name}", shortcuts),
            keeps_shape=keeps_shape(block),
            stochastic_depth=tuple(
                f"{path}.{name}.{inner}" for inner, module in block.named_modules() if is_stochastic_depth(module)
            ),
        )
        for name, block in model.get_submodule(path).named_children()
    )


def _is_of_same_library(module: nn.Module, model: nn.Module) -> bool:
    libraries = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    return type(module).__module__.partition(".")[0] in libraries


def read_stage(
    model: nn.Module, path: str, blocks: tuple[Block, ...], norms: tuple[str, ...] = (), channel_dim: int = 1
) -> Stage:
    """Put blocks together to a stage; the last convolution or linear layer says how many channels it has."""
    return Stage(
        path=path, channels=num_outputs(model, blocks[-1].path), blocks=blocks, norms=norms, channel_dim=channel_dim
    )


def first_changes_shape(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    """Say of the first block, which begins its stage with a stride, that it changes the shape of its input."""
    return (dataclasses.replace(blocks[0], keeps_shape=False), *blocks[1:])


def num_outputs(model: nn.Module, path: str) -> int:
    """Return the output channels of the last convolution or linear layer at or below `path`; 0 without one."""
    found = 0
    for module in model.get_submodule(path).modules():
        if isinstance(module, nn.Linear):
            found = module.out_features
        elif isinstance(module, nn.Conv2d):
            found = module.out_channels
        elif type(module).__name__ == "Conv1D":  # the linear layer of transformers' GPT-2
            found = int(module.weight.shape[1])  # type: ignore[arg-type, index]
    return found


def split_flat(model: nn.Module, path: str, blocks: Iterable[Block]) -> tuple[Stage, ...]:
    """Divide blocks that lie in one list into stages: a block that changes the shape begins a new one."""
    stages: list[list[Block]] = []
    for block in blocks:
        if not stages or not block.keeps_shape:
            stages.append([])
        stages[-1].append(block)
    return tuple(read_stage(model, path, tuple(stage)) for stage in stages)


def fold_single_ends(stages: Iterable[Stage], stem: tuple[str, ...], end: tuple[str, ...]) -> tuple[Stage, ...]:
    """Count leading and trailing stages of one block to the stem and the end of the network.

    Mobile networks have them; nothing in them can be skipped. The norms of stem and first block follow the
    first stage that is left, those of last block and final convolution the last one, as in the ADN authors'
    MobileNetV2.

    Args:
        stages: all stages.
        stem: paths of the norms before the first block.
        end: paths of the norms behind the last block.
    """
    left = list(stages)
    before, after = list(stem), list(end)
    while len(left) > 1 and len(left[0].blocks) == 1:
        before += left.pop(0).blocks[0].norms
    while len(left) > 1 and len(left[-1].blocks) == 1:
        after = [*left.pop().blocks[0].norms, *after]
    left[0] = dataclasses.replace(left[0], norms=(*before, *left[0].norms))
    left[-1] = dataclasses.replace(left[-1], norms=(*left[-1].norms, *after))
    return tuple(left)
