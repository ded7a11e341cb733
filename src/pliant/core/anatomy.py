"""What a reader found in a model: stages, blocks, norms and head, as paths and shapes. Data, no modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

__all__ = ["Anatomy", "Block", "SelfDescribing", "Stage"]


@dataclass(frozen=True, kw_only=True)
class Block:
    """One residual block.

    Attributes:
        path: the module's path in the model, such as `layer1.0`.
        norms: paths of the norms on the residual branch, in order of execution. Norms on a
            projection shortcut are not among them: every sub-network shares those.
        keeps_shape: whether the output has the shape of the input, so that the block can be skipped.
        stochastic_depth: paths of the modules that drop the residual branch at random in training.
        outputs: how many values the block returns; the residual stream is the first of them, and a skipped
            block returns None for the others.
    """

    path: str
    norms: tuple[str, ...]
    keeps_shape: bool
    stochastic_depth: tuple[str, ...] = ()
    outputs: int = 1


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Consecutive residual blocks of one output shape.

    Attributes:
        path: the module that holds the blocks, such as `layer1`.
        channels: channels of the stage's output.
        blocks: the residual blocks in order of execution.
        norms: paths of norms outside the blocks whose input changes when this stage is skipped in part,
            such as the one of the patch merging that leads to it.
        channel_dim: which dimension of the stage's output the channels are: 1 in `[batch, channels,
            height, width]`, -1 in `[batch, tokens, channels]`.
    """

    path: str
    channels: int
    blocks: tuple[Block, ...]
    norms: tuple[str, ...] = ()
    channel_dim: int = 1


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """The parts of one model that a wing may change.

    Attributes:
        family: what the model is, for messages: `torchvision ResNet`.
        stages: residual stages from input to output.
        head: path of the classifier.
        num_classes: outputs of the classifier; 0 where the model has none.
        columnar: the model is one column of equal blocks, as a ViT is: one stage, which a wing may
            divide into groups.
    """

    family: str
    stages: tuple[Stage, ...]
    head: str
    num_classes: int
    columnar: bool = False


@runtime_checkable
class SelfDescribing(Protocol):
    """A model that states its own anatomy; no reader is needed for it."""

    def anatomy(self) -> Anatomy:
        """Return the model's stages, blocks, norms and head."""
        ...
