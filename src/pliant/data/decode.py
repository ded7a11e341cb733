"""Image files to bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["decode_all", "find_size", "read_image", "to_bytes"]

PROBES = 64
CHUNK = 64


def read_image(path: Path) -> Image:
    """Read a picture in RGB, whatever it was in.

    Raises:
        ValueError: it cannot be read; names the path.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode == "RGB":
                image.load()
                return image
            if image.mode.startswith("I;16") or image.mode == "I":
                # Pillow would clip 16 bits at 255 instead of scaling them
                return image.point(lambda value: value / 256).convert("L").convert("RGB")
            if "transparency" in image.info:
                return image.convert("RGBA").convert("RGB")
            return image.convert("RGB")
    except Exception as error:  # decoders of many formats raise whatever they like
        reason = "not an image, or damaged" if "cannot identify" in str(error) else " ".join(str(error).split())
        raise ValueError(f"cannot read the image {path}: {reason}") from None


def to_bytes(image: Image) -> Tensor:
    """Return an RGB picture as bytes `[3, height, width]`."""
    width, height = image.size
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(height, width, 3).permute(2, 0, 1)


def decode_all(files: Sequence[Path], size: int) -> Tensor:
    """Decode many images, on all cores, into `[images, 3, size, size]`.

    An image of another shape is scaled until it covers the square, and what sticks out is cut off evenly.

    Raises:
        ValueError: one of them cannot be read; names the path.
    """
    from PIL import Image, ImageOps

    pixels = torch.empty(len(files), size, size, 3, dtype=torch.uint8)

    pixels = torch.empty(len(files), 3, size, size, dtype=torch.uint8)

    def decode(start: int) -> None:
        for place in range(start, min(start + CHUNK, len(files))):
            image = read_image(files[place])
            if image.size != (size, size):
                image = ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)
            pixels[place] = to_bytes(image)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = [pool.submit(decode, start) for start in range(0, len(files), CHUNK)]
        try:
            for chunk in waiting:
                chunk.result()
        except ValueError:
            pool.shutdown(cancel_futures=True)
            raise
    return pixels


def find_size(files: Sequence[Path]) -> int:
    """Return the usual length of the shorter side in pixels, from some of the images."""
    from PIL import Image

    sides = []
    for path in files[:: max(1, len(files) // PROBES)]:
        try:
            with Image.open(path) as image:  # reads the head of the file only
                sides.append(min(image.size))
        except Exception:
            sides.append(min(read_image(path).size))  # says what is wrong
    return sorted(sides)[len(sides) // 2]
