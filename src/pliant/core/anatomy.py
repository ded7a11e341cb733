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
    """

    path: str
    norms: tuple[str, ...]
    keeps_shape: bool


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Consecutive residual blocks of one output shape.

    Attributes:
        path: the module that holds the blocks, such as `layer1`.
        channels: channels of the stage's output.
        blocks: the residual blocks in order of execution.
    """

    path: str
    channels: int
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """The parts of one model that a wing may change.

    Attributes:
        family: what the model is, for messages: `torchvision ResNet`.
        stages: residual stages from input to output.
        head: path of the classifier.
        num_classes: outputs of the classifier; 0 where the model has none.
    """

    family: str
    stages: tuple[Stage, ...]
    head: str
    num_classes: int


@runtime_checkable
class SelfDescribing(Protocol):
    """A model that states its own anatomy; no reader is needed for it."""

    def anatomy(self) -> Anatomy:
        """Return the model's stages, blocks, norms and head."""
        ...
