"""Cutting a part off a data set, with the same share of each class."""

from __future__ import annotations

import torch
from torch import Tensor

from pliant.data.dice import new_generator

__all__ = ["cut_off"]


def cut_off(labels: Tensor, fraction: float, name: tuple[int | str, ...]) -> tuple[Tensor, Tensor]:
    """Divide images into those that stay and those that are cut off, at random, class by class.

    The number cut off is right for the whole, and within one image of right for each class; each class
    keeps at least one image.

    Args:
        labels: int64 `[images]`.
        fraction: share that is cut off, in [0, 1).
        name: seeds the choice.

    Returns:
        Positions that stay and positions that are cut off, both rising.
    """
    counts = torch.bincount(labels)
    wanted = counts.double() * fraction
    take = wanted.floor().long()
    missing = round(wanted.sum().item()) - int(take.sum())
    take[(wanted - take).argsort(descending=True, stable=True)[:missing]] += 1
    take = take.minimum((counts - 1).clamp_(min=0))
    generator = new_generator("cut", *name)
    off = torch.zeros(len(labels), dtype=torch.bool)
    for label, number in enumerate(take.tolist()):
        members = (labels == label).nonzero().flatten()
        off[members[torch.randperm(len(members), generator=generator)[:number]]] = True
    return (~off).nonzero().flatten(), off.nonzero().flatten()
