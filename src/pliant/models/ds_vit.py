"""DS-ViT: a vision transformer whose blocks are cut in one residual stream of fixed width, a reconstruction.

Li et al., "DS-Net++", 2022, slice the embedding, the heads and the MLPs of vision transformers. Known are these
dimensions and the words "dynamic idle slicing"; no code was published. Here a block of fewer heads normalizes, reads
and writes the leading channels of the stream, and the idle ones pass it unchanged. So blocks of different widths
follow each other, and neither the patches nor the classifier lose channels.

Letters of shapes: B batch, T tokens, D channels of the stream, E of these that a block reads, H heads.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pliant.core.anatomy import Anatomy, Block, ChannelGroup, Cut, Stage

__all__ = ["DSViT"]

# Of six heads so many, and the hidden channels of the MLP by the channels that it reads: the computation grows evenly.
SLICES = ((3, 2), (4, 2), (5, 3), (6, 4))
OF_HEADS, RATIO = SLICES[-1]
# How a sub-network prints its width: the share of heads.
SHARES = tuple(round(heads / OF_HEADS, 2) for heads, _ in SLICES)
EPSILON = 1e-6  # of the norms, as in DeiT

Names = tuple[tuple[str, int | None], ...]
# What shrinks with the channels that a linear layer takes, that it gives, and that a norm has.
TAKES: Names = (("weight", 1), ("in_features", None))
GIVES: Names = (("weight", 0), ("bias", 0), ("out_features", None))
NORMS: Names = (("weight", 0), ("bias", 0), ("normalized_shape", None))


class Attention(nn.Module):
    """Self-attention with a layer each for queries, keys and values, so that leading heads are views of weights."""

    def __init__(self, channels: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, T, E]` to the same shape."""
        query, key, value = (
            layer(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )  # [B, H, T, E / H]
        return self.project(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, RATIO * channels)
        self.reduce = nn.Linear(RATIO * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, T, E]` to the same shape."""
        return self.reduce(F.gelu(self.expand(x)))


class EncoderBlock(nn.Module):
    """Attention and an MLP, added to the leading channels of the stream: as many as its norms have."""

    def __init__(self, channels: int, head_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=EPSILON)
        self.attention = Attention(channels, head_dim)
        self.norm2 = nn.LayerNorm(channels, eps=EPSILON)
        self.mlp = MLP(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map the stream `[B, T, D]` to the same shape."""
        x = _added(x, self.attention(self.norm1(_leading(x, self.norm1))))
        return _added(x, self.mlp(self.norm2(_leading(x, self.norm2))))


def _leading(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    return x[..., : norm.normalized_shape[0]]


def _added(x: Tensor, update: Tensor) -> Tensor:
    idle = x.shape[-1] - update.shape[-1]
    return x + (F.pad(update, (0, idle)) if idle else update)


class DSViT(nn.Module):
    """A DeiT that brings four widths for a gate to choose among, and the whole network, which teaches.

    The early blocks have half of their heads in all of the four. The late ones have 3, 4, 5 or 6 of six heads, and
    2, 2, 3 or 4 times as many hidden channels.

    Args:
        num_classes: outputs of the classifier.
        in_channels: channels of the images.
        image_size: pixels of a side.
        patch_size: pixels of a side of a patch.
        heads: of a block; a multiple of 6.
        head_dim: channels of a head; the stream has `heads * head_dim`.
        num_blocks: in all.
        num_early: how many of them come before the gate.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        image_size: int = 224,
        patch_size: int = 16,
        heads: int = 6,
        head_dim: int = 64,
        num_blocks: int = 12,
        num_early: int = 3,
    ) -> None:
        super().__init__()
        if heads < 1 or heads % OF_HEADS:
            raise ValueError(f"DSViT: got heads={heads}, expected a multiple of {OF_HEADS}")
        if not 1 <= num_early < num_blocks:
            raise ValueError(f"DSViT: got num_early={num_early}, expected 1 to {num_blocks - 1} of {num_blocks} blocks")
        if patch_size < 1 or image_size < 1 or image_size % patch_size:
            raise ValueError(f"DSViT: got image_size={image_size}, expected a multiple of patch_size={patch_size}")
        self.num_classes = num_classes
        self.image_size = image_size
        self.num_early = num_early
        self.channels = heads * head_dim
        self.patches = nn.Conv2d(in_channels, self.channels, patch_size, patch_size)
        self.class_token = nn.Parameter(torch.empty(1, 1, self.channels))
        self.position_embedding = nn.Parameter(torch.empty(1, 1 + (image_size // patch_size) ** 2, self.channels))
        self.blocks = nn.Sequential(*(EncoderBlock(self.channels, head_dim) for _ in range(num_blocks)))
        self.norm = nn.LayerNorm(self.channels, eps=EPSILON)
        self.head = nn.Linear(self.channels, num_classes)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.trunc_normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `[batch, in_channels, image_size, image_size]` to logits `[batch, num_classes]`."""
        patches = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.class_token.expand(x.shape[0], -1, -1), patches), 1) + self.position_embedding
        return self.head(self.norm(self.blocks(x))[:, 0])

    def anatomy(self) -> Anatomy:
        """Return the early and the late blocks as two stages, their norms, and the widths that the network brings."""
        paths = [f"blocks.{number}" for number in range(len(self.blocks))]
        parts = paths[: self.num_early], paths[self.num_early :]
        stages = tuple(
            Stage(
                path="blocks",
                channels=self.channels,
                blocks=tuple(
                    Block(path=path, norms=(f"{path}.norm1", f"{path}.norm2"), keeps_shape=True) for path in part
                ),
                channel_dim=-1,
            )
            for part in parts
        )
        return Anatomy(
            family="DS-ViT",
            stages=stages,
            head="head",
            num_classes=self.num_classes,
            channels=tuple(self._groups(parts)),
            widths=(*((SHARES[0], share) for share in SHARES), (1.0, 1.0)),
        )

    def _groups(self, parts: tuple[list[str], list[str]]) -> Iterator[ChannelGroup]:
        """Yield the stream, of which nothing is cut; for each stage what its blocks read, and their hidden channels."""
        kept = tuple((share, self.channels) for share in (SHARES[0], 1.0))
        yield ChannelGroup(units=self.channels, stage=0, cuts=(), kept=kept, streams=(0, 1))
        unit = self.channels // OF_HEADS
        for stage, paths in enumerate(parts):
            read = tuple(cut for path in paths for cut in _read_by(path, unit))
            hidden = tuple(cut for path in paths for cut in _hidden_of(path, unit))
            kept = tuple((share, heads) for share, (heads, _) in zip(SHARES, SLICES, strict=True))
            yield ChannelGroup(units=OF_HEADS, stage=stage, cuts=read, kept=kept)
            kept = tuple((share, heads * ratio) for share, (heads, ratio) in zip(SHARES, SLICES, strict=True))
            yield ChannelGroup(units=OF_HEADS * RATIO, stage=stage, cuts=hidden, kept=kept)


def _read_by(path: str, unit: int) -> Iterator[Cut]:
    """What of a block shrinks with its heads, the channels of which are those that it reads and writes."""
    for norm in (f"{path}.norm1", f"{path}.norm2"):
        yield from _cuts(norm, NORMS, unit)
    for name in ("query", "key", "value", "project"):
        yield from _cuts(f"{path}.attention.{name}", TAKES + GIVES, unit)
    yield from _cuts(f"{path}.mlp.expand", TAKES, unit)
    yield from _cuts(f"{path}.mlp.reduce", GIVES, unit)


def _hidden_of(path: str, unit: int) -> Iterator[Cut]:
    """What of a block shrinks with the hidden channels of its MLP."""
    yield from _cuts(f"{path}.mlp.expand", GIVES, unit)
    yield from _cuts(f"{path}.mlp.reduce", TAKES, unit)


def _cuts(path: str, names: Names, unit: int) -> Iterator[Cut]:
    return (Cut(path=path, name=name, dim=dim, per_unit=unit) for name, dim in names)
