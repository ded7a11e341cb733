"""The settings of the exits wing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pliant.core.config import Config

__all__ = ["Exits"]


@dataclass(frozen=True, kw_only=True)
class Exits(Config):
    """Give a network classifiers on the way, at which a pass can end.

    The last exit is the network's own classifier. A network that brings exits, such as MSDNet, keeps them.

    Attributes:
        at: where: numbers of stages, counted from 1, at whose ends the exits stand (of a network that is one column
            of equal blocks, such as a ViT, numbers of blocks), or paths of blocks. None = the end of every stage but
            the last; in a column of blocks that is not divided into groups, after each quarter.
        classifier: `linear`, a linear layer on the averaged features; or `convolutions`, MSDNet's, with two
            convolutions of stride 2 before it, for feature maps.
        equilibrium: gradient equilibrium (IMTA paper, section 3.1): where k exits learn together, the gradient that
            exit i of them sends back is scaled by 1 / (k - i + 1) and what comes from behind it by
            (k - i) / (k - i + 1), so that no block gets more than an average. `coarsest` scales the features that the
            classifier reads, as in the published code; `all` scales every feature map of a network of many scales;
            `none` leaves the sum of all gradients. Where there is one scale the first two are the same.
        collaboration: inline collaboration (IMTA paper, section 3.2): what an exit's classifier takes from the answer
            of the exit before, through which no gradient flows. `identity` adds that answer to its own; `linear` adds
            a linear function of it, which begins as zero; `concatenate` joins a learned function of it to the
            features, as in the published code (which lets the gradient through); `none`.
    """

    at: tuple[int | str, ...] | None = None
    classifier: Literal["linear", "convolutions"] = "linear"
    equilibrium: Literal["none", "coarsest", "all"] = "coarsest"
    collaboration: Literal["none", "identity", "linear", "concatenate"] = "none"

    def validate(self) -> None:
        """Check that places are numbers from 1 on, each once."""
        if self.at is None:
            return
        if not self.at:
            raise ValueError("Exits.at: got [], expected at least one place; leave it out for the end of every stage")
        if any(isinstance(place, int) and place < 1 for place in self.at):
            raise ValueError(f"Exits.at: got {list(self.at)}, expected numbers from 1 on, or paths of blocks")
        if len(set(self.at)) < len(self.at):
            raise ValueError(f"Exits.at: got {list(self.at)}, expected each place once")
