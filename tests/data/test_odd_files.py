"""Files and folders that are odd: they come out right, or are named; nothing is counted twice."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy
import pytest
from PIL import Image

from pliant.data import load_data
from pliant.data.decode import read_image


def folders(path: Path) -> Path:
    for part in ("train", "test"):
        for label, name in enumerate(("cat", "dog")):
            (path / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), (100 * label, 0, 0)).save(path / part / name / "image.png")
    return path


def test_a_link_back_up_is_not_followed(tmp_path):
    root = folders(tmp_path)
    (root / "train" / "cat" / "again").symlink_to(root / "train", target_is_directory=True)
    data = load_data(root, image_size=8, val_fraction=0)
    assert sorted(data.train.labels.tolist()) == [0, 1]


@pytest.mark.skipif(os.geteuid() == 0 and os.access("/", os.W_OK), reason="this user may read everything")
def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    root = folders(tmp_path)
    hidden = root / "train" / "cat" / "more"
    hidden.mkdir(mode=0)
    with pytest.raises(ValueError, match=r"train/cat/more: cannot be read"):
        load_data(root, image_size=8)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_turned_tiff_is_turned(tmp_path, mode, orientation):
    pixels = numpy.random.default_rng(0).integers(0, 256, (5, 9, 3), dtype=numpy.uint8)
    image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "turned.tif", tiffinfo={274: orientation})
    turned = {
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }[orientation]
    found = numpy.asarray(read_image(tmp_path / "turned.tif", {}))
    assert numpy.array_equal(found, numpy.asarray(image.transpose(turned).convert("RGB")))


def test_planes_of_16_bits_are_refused(tmp_path):
    """Pillow reads them as bytes."""
    rest, pixels = 134, 164  # behind ten entries
    entries = [(256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 3, rest), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 3, rest + 6)]
    entries += [(277, 3, 1, 3), (278, 3, 1, 2), (279, 4, 3, rest + 18), (284, 3, 1, 2)]
    file = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    file += b"".join(struct.pack("<HHII", *entry) for entry in entries) + struct.pack("<I", 0)
    file += struct.pack("<3H3I3I", 16, 16, 16, pixels, pixels + 8, pixels + 16, 8, 8, 8)
    assert len(file) == pixels
    (tmp_path / "planes.tif").write_bytes(file + bytes(range(24)))
    with pytest.raises(ValueError, match=r"planes\.tif: planes of more than 8 bits"):
        read_image(tmp_path / "planes.tif", {})
