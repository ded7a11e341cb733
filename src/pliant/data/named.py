"""Data sets that have a name: scikit-learn's digits, CIFAR-10 and CIFAR-100."""

from __future__ import annotations

import contextlib
import io
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pliant.data.cut import cut_off

__all__ = ["NAMED", "NAMED_SIZE", "LabelledPixels", "load_named"]

CIFAR = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}
"""Our name, and torchvision's."""

NAMED = ("digits", *CIFAR)
NAMED_SIZE = 32
"""Height and width in pixels of all of them."""

DIGITS_TEST_FRACTION = 0.2
DOWNLOAD_TIMEOUT_S = 30


@dataclass(frozen=True)
class LabelledPixels:
    """Small images.

    Attributes:
        pixels: bytes `[images, 3, size, size]`.
        labels: int64 `[images]`.
    """

    pixels: Tensor
    labels: Tensor


NamedParts = tuple[tuple[str, ...], dict[str, LabelledPixels]]


def load_named(name: str, cache: Path, download: bool) -> NamedParts:
    """Return class names, and training and test images as `train` and `test`.

    Args:
        name: one of `NAMED`.
        cache: where CIFAR is kept.
        download: whether it may be fetched.

    Raises:
        ValueError: CIFAR is not in the cache and cannot be fetched.
    """
    return _load_digits() if name == "digits" else _load_cifar(name, cache / "downloads", download)


def _load_digits() -> NamedParts:
    """Return scikit-learn's 1,797 handwritten digits.

    They have 8 x 8 pixels in 17 shades, and are enlarged in three equal channels. The data has no test
    part of its own: a fifth of each class is, always the same images.
    """
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    shades = torch.from_numpy(found.images).float()[:, None] / 16
    enlarged = F.interpolate(shades, size=(NAMED_SIZE, NAMED_SIZE), mode="bicubic", align_corners=False)
    pixels = (enlarged.clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(found.target).long()
    train, test = cut_off(labels, DIGITS_TEST_FRACTION, name=("digits", "test"))
    parts = {"train": LabelledPixels(pixels[train], labels[train]), "test": LabelledPixels(pixels[test], labels[test])}
    return tuple(str(name) for name in found.target_names), parts


def _load_cifar(name: str, folder: Path, download: bool) -> NamedParts:
    import torchvision

    dataset = getattr(torchvision.datasets, CIFAR[name])
    try:
        with _network_patience():
            found = {key: dataset(str(folder), train=key == "train", download=download) for key in ("train", "test")}
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split()) if download else "download is off"
        raise ValueError(
            f"{name}: not in {folder} and not downloaded ({reason}); put {dataset.filename} there, "
            "or name a folder or an archive of class folders"
        ) from None
    parts = {
        key: LabelledPixels(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for key, part in found.items()
    }
    return tuple(found["train"].classes), parts


@contextlib.contextmanager
def _network_patience() -> Iterator[None]:
    """Wait for a silent network for a while only."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # torchvision prints "Files already downloaded"
            yield
    finally:
        socket.setdefaulttimeout(before)
