"""`Augment`: how training images are varied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pliant.core.config import Config

__all__ = ["Augment"]


@dataclass(frozen=True, kw_only=True)
class Augment(Config):
    """How training images are varied: first where they are cut out, then what is done to them, then mixing.

    Attributes:
        padding: of small images: zero pixels put around an image, of which a window of the original size is cut
            at random; none = an eighth of the image size, 0 = no cutting.
        scale: of large images: share of the area that the window of the random resized crop covers.
        crop: pixels of a side that the network trains on; none = the image size. A smaller one saves time, and
            corrects that random crops show things larger than the validation does (FixRes).
        flip: mirror every second image; none = where mirrored images mean the same (not for digits).
        auto: `trivial` (TrivialAugment, wide) or `rand` (RandAugment) changes geometry and colours.
        rand_ops: of `rand`: operations on each image.
        rand_magnitude: of `rand`: strength of the operations, 0 to 30.
        erase: probability that a rectangle of an image is blanked (random erasing).
        mixup: alpha of mixup; 0 = none. With cutmix too, each batch gets one of the two.
        cutmix: alpha of cutmix; 0 = none.
        mix_probability: share of the batches that are mixed at all.
        repeats: times each image comes in an epoch, differently varied (repeated augmentation). The epoch
            stays as long as it was: it has as many fewer images.
    """

    padding: int | None = None
    scale: tuple[float, float] = (0.08, 1.0)
    crop: int | None = None
    flip: bool | None = None
    auto: Literal["none", "trivial", "rand"] = "none"
    rand_ops: int = 2
    rand_magnitude: int = 9
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    repeats: int = 1

    @property
    def mixes(self) -> bool:
        """Whether labels come as probabilities."""
        return (self.mixup > 0 or self.cutmix > 0) and self.mix_probability > 0

    def validate(self) -> None:
        """Check the ranges."""
        if self.padding is not None and self.padding < 0:
            raise ValueError(f"Augment.padding: got {self.padding}, expected at least 0")
        if self.crop is not None and self.crop < 1:
            raise ValueError(f"Augment.crop: got {self.crop}, expected at least 1")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"Augment.scale: got {list(self.scale)}, expected two rising shares in (0, 1]")
        if not 0 <= self.rand_magnitude <= 30:
            raise ValueError(f"Augment.rand_magnitude: got {self.rand_magnitude}, expected 0 to 30")
        for name in ("erase", "mix_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Augment.{name}: got {getattr(self, name)}, expected a probability in [0, 1]")
        for name in ("mixup", "cutmix"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"Augment.{name}: got {getattr(self, name)}, expected an alpha of at least 0")
        for name in ("rand_ops", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"Augment.{name}: got {getattr(self, name)}, expected at least 1")
