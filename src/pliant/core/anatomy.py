"""What a reader found in a model: stages, blocks, norms and head, as paths and shapes. Data, no modules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

from torch import nn

__all__ = [
    "Anatomy",
    "Block",
    "ChannelGroup",
    "Cut",
    "Stage",
    "Truncatable",
    "stated_anatomy",
    "states_anatomy",
]


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
        keeps_place: the network counts on the block being in its place, for instance by an index: where it
            is taken out, an identity takes its place.
        exit: path of the classifier that the network itself brings at the end of this block; empty where it has none.
    """

    path: str
    norms: tuple[str, ...]
    keeps_shape: bool
    stochastic_depth: tuple[str, ...] = ()
    outputs: int = 1
    keeps_place: bool = False
    exit: str = ""


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
class Cut:
    """One thing that shrinks with a group of channels: a dimension of a tensor, or a number.

    Attributes:
        path: the module that has it.
        name: of the parameter, the buffer or the attribute.
        dim: which dimension of the tensor; none = a number, or a tuple with one number in it.
        parts: how many equal parts the dimension consists of, each of which is cut: 3 where queries, keys and values
            come out of one layer.
        per_unit: how many entries of a part belong to one unit of the group.
    """

    path: str
    name: str
    dim: int | None = None
    parts: int = 1
    per_unit: int = 1


@dataclass(frozen=True, kw_only=True)
class ChannelGroup:
    """Channels that must agree, so that they are cut together: what is added up has equal channels.

    Attributes:
        units: how many units there are: channels, heads, or groups of a grouped convolution.
        stage: the index in `Anatomy.stages` of the stage that they belong to.
        cuts: what shrinks with them.
        kept: where the network says so itself, how many units run at each width of its stage: pairs of both.
        streams: the indices of the stages whose output has these channels.
    """

    units: int
    stage: int
    cuts: tuple[Cut, ...]
    kept: tuple[tuple[float, int], ...] = ()
    streams: tuple[int, ...] = ()


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
        traced: it was read from an example, so that the model alone does not tell it again.
        channels: groups of channels; empty where nobody asked for them.
        widths: the widths that the network brings, see `SubNetSpace.widths`; empty where it has none.
        dropout: paths of the dropouts that, in a network of several widths, act in the largest alone.
        answers_by: for what the classifier answers: `input`, once for each; `token`, once for each position of the
            blocks' outputs; or in a word what else, such as `span`.
    """

    family: str
    stages: tuple[Stage, ...]
    head: str
    num_classes: int
    columnar: bool = False
    traced: bool = False
    channels: tuple[ChannelGroup, ...] = ()
    widths: tuple[tuple[float, ...], ...] = ()
    dropout: tuple[str, ...] = ()
    answers_by: str = "input"

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, lists, texts and numbers; `from_dict` reads them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build from what `to_dict` gave, also after it went through JSON.

        Raises:
            ValueError: it is not such a dictionary.
        """
        try:
            stages = tuple(_read(Stage, stage, blocks=Block) for stage in data["stages"])
            channels = tuple(_read(ChannelGroup, group, cuts=Cut) for group in data.get("channels", ()))
            return cls(**_frozen(dict(data)) | {"stages": stages, "channels": channels})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not an anatomy: {error}") from None


def _read(kind: type, data: Mapping[str, Any], **parts: type) -> Any:
    """Make a dataclass of plain data; some of its fields are lists of others."""
    return kind(
        **_frozen(dict(data)) | {name: tuple(_read(part, one) for one in data[name]) for name, part in parts.items()}
    )


def _frozen(value: Any) -> Any:
    """Return plain data with tuples in place of lists."""
    if isinstance(value, dict):
        return {name: _frozen(one) for name, one in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def states_anatomy(model: object) -> bool:
    """Whether the class of a model has a method `anatomy`; a child or an attribute of that name is not one."""
    return callable(getattr(type(model), "anatomy", None))


def stated_anatomy(model: Any) -> Anatomy | None:
    """Return what a model states by a method `anatomy` of its class; none if it has no such method."""
    return model.anatomy() if states_anatomy(model) else None


@runtime_checkable
class Truncatable(Protocol):
    """A network that brings exits and can end at one of them, as a network of its own class."""

    def truncated(self, number: int) -> nn.Module:
        """Return the network up to exit `number`, counted from 1; its tensors are this one's."""
        ...
