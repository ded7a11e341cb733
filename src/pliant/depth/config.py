"""The settings of the depth wing."""

from __future__ import annotations

from dataclasses import dataclass

from pliant.core.config import Config

__all__ = ["Depth"]


@dataclass(frozen=True, kw_only=True)
class Depth(Config):
    """Make the second part of every residual stage skippable (ADN paper, section 3).

    Attributes:
        skip_aware_norms: give the norms of mandatory blocks a second set of parameters and statistics,
            used while their stage skips (section 3.1). False is a row of the paper's ablation (Table 4).
        mandatory: for each stage, how many blocks always run; none = `min(n-1, ceil(n/2))` of n, and
            `min(n-1, ceil(2n/3))` in the groups of a columnar network, as in the paper. A stage with all its
            blocks mandatory has nothing to skip; the last stage of a Swin is one, as in the paper's
            Table 1 (its released code has `(1, 1, 3, 1)` for Swin-T).
        groups: how many groups the blocks of a columnar network (ViT, BERT, Mixer) are divided into; each is a
            stage. None = 4, or fewer where a group would have less than two blocks.
    """

    skip_aware_norms: bool = True
    mandatory: tuple[int, ...] | None = None
    groups: int | None = None

    def validate(self) -> None:
        """Check the numbers of groups and of mandatory blocks."""
        if self.groups is not None and self.groups < 1:
            raise ValueError(f"Depth.groups: got {self.groups}, expected at least 1")
        if self.mandatory is not None and any(count < 1 for count in self.mandatory):
            raise ValueError(f"Depth.mandatory: got {list(self.mandatory)}, expected at least 1 in every stage")
