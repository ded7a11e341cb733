"""`load_data`: from the name or the path of a data set to its splits."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from pliant.data.archive import is_archive, unpack
from pliant.data.cache import cache_folder, cached_tensors, fingerprint
from pliant.data.cut import cut_off
from pliant.data.decode import VERSION, decode_all, find_size, find_whites
from pliant.data.files import FileSplit, default_workers
from pliant.data.folder import Listing, list_folder
from pliant.data.named import NAMED, NAMED_SIZE, LabelledPixels, load_named
from pliant.data.split import Interpolation, Split, Style
from pliant.data.tensors import PixelStore, TensorSplit, channel_statistics

__all__ = ["ImageData", "load_data"]

SMALL_SIZE = 96
"""Images of up to so many pixels a side are kept in memory,"""
SMALL_BYTES = 4 * 2**30
"""if all of them together take no more than this."""

LARGE_SIZE = 224
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageData:
    """A data set in three parts.

    Attributes:
        name: what it is called.
        class_names: class `i` is called `class_names[i]`.
        image_size: height and width in pixels.
        mean: of the three channels of pixels in [0, 1]; images come with it subtracted.
        std: of the three channels; images come divided by it.
        train: images to train on.
        val: images to choose by, held out from training.
        test: images to report on, which choose nothing; none if the data has none.
    """

    name: str
    class_names: tuple[str, ...]
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    train: Split
    val: Split
    test: Split | None

    def as_trained_on(self, class_names: Sequence[str], mean: Sequence[float], std: Sequence[float]) -> ImageData:
        """Return the same images for a network that was trained on other data: normalised as that was.

        Raises:
            ValueError: the classes are others, so that class `i` of the network is not class `i` here.
        """
        if len(class_names) == len(self.class_names) and tuple(class_names) != self.class_names:
            own, trained = next(pair for pair in zip(self.class_names, class_names, strict=True) if pair[0] != pair[1])
            raise ValueError(f"{self.name} has other classes than the network was trained on: {own!r}, not {trained!r}")
        means, stds = (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])

        def normalised(split: Split) -> Split:
            other = copy.copy(split)
            other.style = replace(split.style, mean=means, std=stds)
            return other

        return replace(
            self,
            mean=means,
            std=stds,
            train=normalised(self.train),
            val=normalised(self.val),
            test=normalised(self.test) if self.test else None,
        )


def load_data(
    spec: str | os.PathLike[str],
    *,
    image_size: int | None = None,
    resize: int | None = None,
    interpolation: Interpolation = "bilinear",
    white: float | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
    download: bool = True,
    workers: int | None = None,
) -> ImageData:
    """Load a data set by its name or its path.

    A folder has train/ and test/ (or val/), each with one folder of images per class. Validation images
    are cut from train/, the same share of each class, unless there are train/, val/ and test/.
    With val/ alone, its images serve as the test images: they choose nothing.

    Small images (up to 96 pixels a side) are decoded once and stay in memory, on the device. Large ones are
    read as they are needed, and normalised as ImageNet is. A small image that is not square is scaled until
    it covers the square, and cut in the middle.

    Images of every colour model and depth become 8-bit RGB, transparent pixels white; of several frames the first is
    taken. Files that are not named as images, or hidden, are skipped, with one warning that counts them.

    Args:
        spec: `digits`, `cifar10`, `cifar100`, the path of a folder, or of an archive (.tar*, .zip) of one.
        image_size: height and width in pixels; none = what the images have, and 224 if they are large.
        resize: of large images: the shorter side is scaled to so many pixels before the middle is cut out for
            validation and test; none = 256/224 of the image size.
        interpolation: how images are scaled: `bilinear` or `bicubic`.
        white: the value of white in files of 32-bit integers, signed 16-bit integers or floats, which do not state it;
            none = the smallest of 1 (floats), 255, 65535 and the depth of the integers that none of the training
            images read for this (up to 127) exceeds.
        val_fraction: share of the training images that is held out for validation.
        seed: of the choice of validation images.
        cache: folder for what is unpacked, decoded or downloaded; none = the folder named by the environment
            variable PLIANT_CACHE, else the platform's.
        download: whether CIFAR may be fetched.
        workers: processes that read large images; none = one for each core, at most eight.

    Raises:
        ValueError: there is no such data, or something is wrong with it: one line that says what.
    """
    _check_options(val_fraction, image_size, resize, interpolation, white, workers)
    hold_out = partial(cut_off, fraction=val_fraction, name=("validation", seed))
    folder = cache_folder(cache)
    if spec in NAMED:
        class_names, parts = load_named(str(spec), folder, download)
        style = Style(
            image_size or NAMED_SIZE,
            class_names,
            IMAGENET_MEAN,
            IMAGENET_STD,
            mirrors=spec != "digits",
            interpolation=interpolation,
        )
        return _data(str(spec), _small(parts, style), hold_out)
    path = Path(spec).expanduser()
    if not path.exists():
        raise ValueError(
            f"{os.fspath(spec)!r}: no such data; expected {', '.join(NAMED)}, "
            "or the path of a folder or archive of class folders"
        )
    name = path.name.split(".")[0] if is_archive(path) else path.resolve().name
    listing = list_folder(unpack(path, folder) if is_archive(path) else path)
    if listing.skipped:
        warnings.warn(f"{path}: {listing.what_was_skipped()}", stacklevel=2)
    files = listing.parts["train"].files
    style = Style(
        image_size or _usual_size(files),
        listing.class_names,
        IMAGENET_MEAN,
        IMAGENET_STD,
        resize=resize,
        interpolation=interpolation,
        whites=find_whites(files, white),
    )
    return _data(name, _folder_splits(name, listing, style, workers, folder), hold_out)


def _check_options(
    val_fraction: float,
    image_size: int | None,
    resize: int | None,
    interpolation: str,
    white: float | None,
    workers: int | None,
) -> None:
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction: got {val_fraction}, expected a fraction in [0, 1)")
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size: got {image_size}, expected at least 1")
    if resize is not None and resize < (image_size or 1):
        raise ValueError(f"resize: got {resize}, expected at least the image size, {image_size or 1}")
    if interpolation not in get_args(Interpolation):
        raise ValueError(f"interpolation: got {interpolation!r}, expected {' or '.join(get_args(Interpolation))}")
    if white is not None and not 0 < white < float("inf"):
        raise ValueError(f"white: got {white}, expected a number above 0")
    if workers is not None and workers < 0:
        raise ValueError(f"workers: got {workers}, expected at least 0")


def _folder_splits(name: str, listing: Listing, style: Style, workers: int | None, cache: Path) -> dict[str, Split]:
    """Small images in memory, large ones in their files."""
    size = style.image_size
    if size <= SMALL_SIZE and listing.count * 3 * size * size <= SMALL_BYTES:
        return _small(_decoded(name, listing, style, cache), style)
    workers = default_workers() if workers is None else workers
    return {
        key: FileSplit(part.files, torch.tensor(part.labels), style, workers) for key, part in listing.parts.items()
    }


_Cut = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Divides the training part: labels to positions that stay and positions for validation."""


def _data(name: str, splits: Mapping[str, Split], hold_out: _Cut) -> ImageData:
    train, val = splits["train"], splits.get("val")
    if val is None:
        stay, held_out = hold_out(train.labels)
        train, val = train.subset(stay), train.subset(held_out)
    style = train.style
    return ImageData(
        name=name,
        class_names=style.class_names,
        image_size=style.image_size,
        mean=style.mean,
        std=style.std,
        train=train,
        val=val,
        test=splits.get("test"),
    )


def _small(parts: Mapping[str, LabelledPixels], style: Style) -> dict[str, Split]:
    # over the whole training part, so that the choice of validation images leaves the pixels as they are
    mean, std = channel_statistics(parts["train"].pixels)
    style = replace(style, mean=mean, std=std)
    return {key: TensorSplit(PixelStore(part.pixels), part.labels, style) for key, part in parts.items()}


def _usual_size(files: Sequence[Path]) -> int:
    size = find_size(files)
    return size if size <= SMALL_SIZE else LARGE_SIZE


def _decoded(name: str, listing: Listing, style: Style, cache: Path) -> dict[str, LabelledPixels]:
    """Decode the images of a folder, or read what was decoded before if no file has changed."""
    size, whites = style.image_size, style.whites
    key = fingerprint(VERSION, size, sorted(whites.items()), listing.identity())
    target = cache / "decoded" / f"{name}-{size}px-{key}.safetensors"

    def decode() -> dict[str, Tensor]:
        return {key: decode_all(part.files, size, whites) for key, part in listing.parts.items()}

    pixels = cached_tensors(target, decode)
    return {key: LabelledPixels(pixels[key], torch.tensor(part.labels)) for key, part in listing.parts.items()}
