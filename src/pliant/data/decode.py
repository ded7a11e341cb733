"""Image files to bytes: the one place where an image file is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pliant.data.colour import WHITES, choose_white, open_values, to_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["VERSION", "decode_all", "find_size", "find_whites", "read_image", "to_bytes"]

VERSION = 2
"""Rises whenever a file is decoded to other bytes than before, so that decoded images in the cache are made again."""

PROBES = 64
CHUNK = 64
OPEN_SUFFIXES = (".pfm", ".tif", ".tiff")
"""Of files that may not state the value of white."""


def read_image(path: Path, whites: Mapping[str, float]) -> Image:
    """Read a picture, the first of several, as 8-bit RGB.

    Args:
        path: of the file.
        whites: from `find_whites`.

    Raises:
        ValueError: it cannot be read, or its values lie outside of 0 to white; names the path.
    """
    with _opened(path) as image:
        return to_rgb(image, whites)


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """Open an image file; whatever is wrong with it becomes one line that names the path."""
    from PIL import Image, UnidentifiedImageError

    try:
        # Not by its path: Pillow would map the file with the size of the turned picture, where a TIFF is turned.
        with path.open("rb") as file, Image.open(file) as image:
            yield image
    except UnidentifiedImageError:
        reason = "it is not an image, is damaged, or is of a kind that Pillow cannot read"
        raise ValueError(f"cannot read the image {path}: {reason}") from None
    except Exception as error:  # decoders of many formats raise whatever they like
        raise ValueError(f"cannot read the image {path}: {' '.join(str(error).split())}") from None


def to_bytes(image: Image) -> Tensor:
    """Return an RGB picture as bytes `[3, height, width]`."""
    width, height = image.size
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(height, width, 3).permute(2, 0, 1)


def decode_all(files: Sequence[Path], size: int, whites: Mapping[str, float]) -> Tensor:
    """Decode many images, on all cores, into `[images, 3, size, size]`.

    An image of another shape is scaled until it covers the square, and what sticks out is cut off evenly.

    Raises:
        ValueError: one of them cannot be read; names the path.
    """
    from PIL import Image, ImageOps

    pixels = torch.empty(len(files), 3, size, size, dtype=torch.uint8)

    def decode(start: int) -> None:
        for place in range(start, min(start + CHUNK, len(files))):
            image = read_image(files[place], whites)
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
    sides = []
    for path in _some(files):
        with _opened(path) as image:  # reads the head of the file only
            sides.append(min(image.size))
    return sorted(sides)[len(sides) // 2]


def find_whites(files: Sequence[Path], white: float | None = None) -> dict[str, float]:
    """Return the value of white in the images of a data set that do not state it, by Pillow's mode.

    Args:
        files: of the training part; some of them are read.
        white: the value, where a person named it.

    Raises:
        ValueError: the values fit no usual range, or an image cannot be read; names a path.
    """
    if white is not None:
        return dict.fromkeys(WHITES, white)
    brightest: dict[str, tuple[float, Path]] = {}
    for path in _some([path for path in files if path.suffix.lower() in OPEN_SUFFIXES]):
        with _opened(path) as image:
            values = open_values(image)
            if values is not None:
                brightest[image.mode] = max(brightest.get(image.mode, (0.0, path)), (float(values.max()), path))
    found = {}
    for mode, (largest, path) in brightest.items():
        try:
            found[mode] = choose_white(mode, largest)
        except ValueError as error:
            raise ValueError(f"white: {error} ({path}); give the value of white") from None
    return found


def _some(files: Sequence[Path]) -> Sequence[Path]:
    return files[:: max(1, len(files) // PROBES)]
