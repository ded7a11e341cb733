"""Which images go where: the first few of each sub-network as small pictures, to be looked at."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from pliant.data import ImageData, Split

__all__ = ["COUNT", "SIDE", "note_examples"]

COUNT = 8
"""Images of each sub-network."""
SIDE = 64
"""Pixels of a side of a picture at most; smaller images keep their size."""


def note_examples(
    subnets: Sequence[str],
    chosen: Tensor,
    predicted: Tensor,
    certainties: Tensor,
    labels: Tensor,
    data: ImageData,
    split: Split,
) -> list[dict[str, Any]]:
    """Note which images each sub-network answers: the first `COUNT` in the order of the data, none chosen by hand.

    Args:
        subnets: which were chosen among.
        chosen: for each image, the place of its sub-network, int64 `[images]`.
        predicted: the class that it answered, int64 `[images]`.
        certainties: how sure it was, `[images]`.
        labels: class of each image, int64 `[images]`.
        data: says what the classes are called, and how the images were normalised.
        split: the images, in that order.

    Returns:
        For each image `index`, its place in the split; `subnet`, which answered; `label` and `predicted`, names of
        classes; `certainty`; `png`, the picture as base64.
    """
    examples = []
    for place, subnet in enumerate(subnets):
        indices = (chosen == place).nonzero().flatten()[:COUNT]
        if not len(indices):
            continue
        (images, _), *_ = split.subset(indices).batches(len(indices))
        for index, image in zip(indices.tolist(), images, strict=True):
            examples.append(
                {
                    "index": index,
                    "subnet": subnet,
                    "label": data.class_names[labels[index]],
                    "predicted": data.class_names[predicted[index]],
                    "certainty": float(certainties[index]),
                    "png": _png(image, data),
                }
            )
    return examples


def _png(image: Tensor, data: ImageData) -> str:
    """Write a normalised image `[3, side, side]` as it looked before, in base64."""
    from PIL import Image

    mean, std = image.new_tensor(data.mean)[:, None, None], image.new_tensor(data.std)[:, None, None]
    pixels = ((image * std + mean) * 255).round().clamp(0, 255).byte()
    if (pixels == pixels[:1]).all():
        picture = Image.fromarray(pixels[0].numpy())
    else:
        picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return b64encode(buffer.getvalue()).decode("ascii")
