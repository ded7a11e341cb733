"""The same picture, written in every kind of file, reaches a network as the same values."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from pliant.data import load_data

from .writers import write_png, write_tiff

Picture = numpy.ndarray
"""`[side, side]` or `[side, side, channels]` in [0, 1]."""
IN_MEMORY, IN_FILES = 64, 128
"""Pixels of a side of a picture that is decoded at once, and of one that is read when it is needed."""


def blocks(side: int) -> Picture:
    """64 blocks, numbered from 0."""
    return numpy.arange(64).reshape(8, 8).repeat(side // 8, 0).repeat(side // 8, 1)


def grey(side: int) -> Picture:
    return blocks(side) / 63


def colour(side: int) -> Picture:
    number = blocks(side)
    return numpy.stack([number % 4, number // 4 % 4, number // 16], axis=2) / 3


def levels(picture: Picture, white: float = 255, kind: str = "u1") -> numpy.ndarray:
    return (picture * white if kind.endswith(("f4", "f8")) else numpy.rint(picture * white)).astype(kind)


def put(root: Path, name: str) -> Path:
    path = root / "pets" / "train" / "cat" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def load(root: Path, side: int = IN_MEMORY, **options: Any) -> list[Picture]:
    """Return what a network sees, before it is normalised: `[side, side, 3]` each, in the order of the names."""
    data = load_data(root / "pets", image_size=side, resize=side, val_fraction=0.0, workers=0, **options)
    mean, std = (torch.tensor(three).view(3, 1, 1) for three in (data.mean, data.std))
    images = torch.cat([images for images, _ in data.train.batches(8)])
    return list((images * std + mean).permute(0, 2, 3, 1).double().numpy())


def assert_shows(found: Picture, wanted: Picture, tolerance: float = 1.0) -> None:
    wanted = wanted if wanted.ndim == 3 else wanted[:, :, None]
    assert abs(found - wanted).max() * 255 <= tolerance + 0.01  # what normalising and back adds


Write = Callable[[Path, Picture], object]


def by_pillow(mode: str = "", white: float = 255, kind: str = "u1", **options: Any) -> Write:
    """Return what writes a picture with Pillow, in a mode and with that value of white."""

    def write(path: Path, picture: Picture) -> None:
        image = Image.fromarray(levels(picture, white, kind))
        (image.convert(mode) if mode else image).save(path, **options)

    return write


def by_tiff(white: float, kind: str, *, inverted: bool = False, **options: Any) -> Write:
    def write(path: Path, picture: Picture) -> None:
        photometric = 2 if picture.ndim == 3 else 0 if inverted else 1
        shown = 1 - picture if inverted else picture
        write_tiff(path, levels(shown, white, kind), photometric=photometric, **options)

    return write


def by_png(bits: int) -> Write:
    return lambda path, picture: write_png(path, levels(picture, 2**bits - 1, "u2"), bits=bits)


def of_several(path: Path, picture: Picture, **options: Any) -> None:
    """Write the picture, and behind it another one, which nobody is to see."""
    first, second = (Image.fromarray(levels(shown)) for shown in (picture, 1 - picture))
    first.save(path, save_all=True, append_images=[second], **options)


FINE: dict[str, Any] = {"quality": 100, "subsampling": 0}
GREYS: dict[str, Write] = {
    "L.png": by_pillow(),
    "L.bmp": by_pillow(),
    "L.gif": by_pillow(),
    "L.jp2": by_pillow(),
    "L.pgm": by_pillow(),
    "L.tif": by_pillow(),
    "L.webp": by_pillow(lossless=True),
    "L.jpg": by_pillow(**FINE),
    "LA.png": by_pillow("LA"),
    "LA.tif": by_pillow("LA"),
    "P.png": by_pillow("P"),
    "PA.tif": by_pillow("PA"),
    "I 16 bit.png": by_pillow(white=65535, kind="u2"),
    "I 16 bit.pgm": by_pillow(white=65535, kind="u2"),
    "I 16 bit.jp2": by_pillow(white=65535, kind="u2"),
    "I 16 bit.tif": by_pillow(white=65535, kind="u2"),
    "I 16 bit, big endian.tif": by_pillow(white=65535, kind=">u2"),
    "I 16 bit, packed.tif": by_pillow(white=65535, kind="u2", compression="tiff_lzw"),
    "I 32 bit, packed.tif": by_pillow(white=65535, kind="i4", compression="tiff_adobe_deflate"),
    "F to 1, packed.tif": by_pillow(white=1, kind="f4", compression="tiff_lzw"),
    "I 8 of 32 bit.tif": by_pillow(kind="i4"),
    "I 16 of 32 bit.tif": by_pillow(white=65535, kind="i4"),
    "I 32 bit.tif": by_pillow(white=2**31 - 1, kind="i4"),
    "F to 1.tif": by_pillow(white=1, kind="f4"),
    "F to 255.tif": by_pillow(kind="f4"),
    "F to 65535.tif": by_pillow(white=65535, kind="f4"),
    "F to 1.pfm": by_pillow(white=1, kind="f4"),
    "16 bit.png": by_png(16),
    "12 bit.tif": by_tiff(4095, "u2", bits=12),
    "8 bit, white is zero.tif": by_tiff(255, "u1", inverted=True),
    "16 bit, white is zero.tif": by_tiff(65535, "u2", inverted=True),
    "unsigned 32 bit.tif": by_tiff(2**32 - 1, "u4"),
    "signed 8 of 16 bit.tif": by_tiff(255, "i2"),
    "signed 8 of 16 bit, big endian.tif": by_tiff(255, ">i2"),
    "float, big endian.tif": by_tiff(1, ">f4"),
    "float, white is zero.tif": by_tiff(1, "f4", inverted=True),
    "two pages.tif": of_several,
    "animated.gif": of_several,
    "animated.apng": partial(of_several, format="PNG"),
    "animated.webp": partial(of_several, lossless=True),
}
COLOURS: dict[str, tuple[Write, float]] = {
    "RGB.png": (by_pillow(), 0),
    "RGB.bmp": (by_pillow(), 0),
    "RGB.ppm": (by_pillow(), 0),
    "RGB.tif": (by_pillow(), 0),
    "RGB.jp2": (by_pillow(), 0),
    "RGB.webp": (by_pillow(lossless=True), 0),
    "RGB.avif": (by_pillow(quality=100, subsampling="4:4:4"), 3),
    "RGB.jpg": (by_pillow(**FINE), 2),
    "RGB.jfif": (by_pillow(format="JPEG", **FINE), 2),
    "P.png": (lambda path, picture: quantized(picture).save(path), 0),
    "P.tif": (lambda path, picture: quantized(picture).save(path), 0),
    "P.gif": (lambda path, picture: quantized(picture).save(path), 0),
    "RGBA.png": (by_pillow("RGBA"), 0),
    "RGBA.tif": (by_pillow("RGBA"), 0),
    "RGBA.webp": (by_pillow("RGBA", lossless=True), 0),
    "RGBX.tif": (by_pillow("RGBX"), 0),
    "CMYK.tif": (by_pillow("CMYK"), 0),
    "CMYK.jpg": (by_pillow("CMYK", quality=100), 3),
    "YCbCr.tif": (by_pillow("YCbCr"), 3),
    "16 bit.png": (by_png(16), 1),
    "16 bit.tif": (by_tiff(65535, "u2"), 1),
    "16 bit, big endian.tif": (by_tiff(65535, ">u2"), 1),
    "two pages.tif": (of_several, 0),
    "animated.apng": (partial(of_several, format="PNG"), 0),
    "animated.webp": (partial(of_several, lossless=True), 0),
    "two views.jpg": (partial(of_several, format="MPO", **FINE), 2),
}


def quantized(picture: Picture) -> Image.Image:
    image = Image.fromarray(levels(picture)).quantize(64)
    assert image.mode == "P"
    return image


@pytest.mark.parametrize("side", [IN_MEMORY, IN_FILES])
@pytest.mark.parametrize("name", GREYS)
def test_a_grey_picture_of_any_kind_is_the_same(tmp_path, name, side):
    GREYS[name](put(tmp_path, name), grey(side))
    (found,) = load(tmp_path, side)
    assert_shows(found, grey(side))


@pytest.mark.parametrize("side", [IN_MEMORY, IN_FILES])
@pytest.mark.parametrize("name", COLOURS)
def test_a_coloured_picture_of_any_kind_is_the_same(tmp_path, name, side):
    write, tolerance = COLOURS[name]
    write(put(tmp_path, name), colour(side))
    (found,) = load(tmp_path, side)
    assert_shows(found, colour(side), tolerance)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_few_bits_are_fractions_of_their_own_white(tmp_path, bits, kind):
    shades = blocks(IN_MEMORY) % 2**bits
    path = put(tmp_path, f"few.{kind}")
    if kind == "png":
        write_png(path, shades, bits=bits)
    else:
        write_tiff(path, shades.astype("u1"), photometric=1, bits=bits)
    assert_shows(load(tmp_path)[0], shades / (2**bits - 1), 0)


CIE_LAB = {
    (0, 0, 0): (0, 0, 0),
    (100, 0, 0): (255, 255, 255),
    (53.59, 0, 0): (128, 128, 128),
    (49.20, 35.59, 34.63): (180, 90, 60),
    (46.53, 5.48, -47.14): (70, 110, 190),
}
"""sRGB colours in L*a*b*, seen in the light of D50 (by the formulas of CIE 15)."""


@pytest.mark.parametrize("lab", CIE_LAB, ids=str)
def test_lab_has_the_colours_of_its_definition(tmp_path, lab):
    lightness, *chroma = lab
    samples = numpy.array([round(lightness * 2.55), *(round(value) % 256 for value in chroma)], "u1")
    write_tiff(put(tmp_path, "lab.tif"), numpy.broadcast_to(samples, (8, 8, 3)), photometric=8)
    wanted = numpy.array(CIE_LAB[lab]).reshape(1, 1, 3) / 255
    assert_shows(load(tmp_path)[0], wanted, 1 if lab[1] == 0 else 3)  # chroma has steps of 1


def over_white(picture: Picture, alpha: Picture) -> Picture:
    picture = picture if picture.ndim == 3 else picture[:, :, None]
    return picture * alpha[:, :, None] + 1 - alpha[:, :, None]


@pytest.mark.parametrize("side", [IN_MEMORY, IN_FILES])
@pytest.mark.parametrize(
    "name", ["RGBA.png", "RGBA.tif", "RGBA.webp", "LA.png", "LA.tif", "16.png", "La.tif", "RGBa.tif"]
)
def test_white_shows_through(tmp_path, name, side):
    picture = grey(side) if name[0] == "L" else colour(side)
    alpha = numpy.rot90(grey(side)).copy()
    path = put(tmp_path, name)
    both = numpy.dstack([picture, alpha])
    if "a." in name:  # premultiplied
        both = numpy.dstack([picture * alpha[:, :, None] if picture.ndim == 3 else picture * alpha, alpha])
        write_tiff(path, levels(both), photometric=1 if picture.ndim == 2 else 2, extra=1)
    elif name == "16.png":
        by_png(16)(path, both)
    else:
        by_pillow(lossless=True, exact=True)(path, both)
    assert_shows(load(tmp_path, side)[0], over_white(picture, alpha), 2)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("place", [0, 1])
def test_one_grey_may_be_transparent(tmp_path, bits, place):
    # in eight bits the 16-bit greys are all but equal: one is transparent, and its neighbours are nearly black
    darkest = 1000 if bits == 16 else 0
    shades, key = blocks(IN_MEMORY) % 2**bits + darkest, darkest + place
    write_png(put(tmp_path, "key.png"), shades, bits=bits, transparent=[key])
    wanted = numpy.where(shades == key, 1, shades / (2**bits - 1))
    assert_shows(load(tmp_path)[0], wanted)


@pytest.mark.parametrize(
    ("kind", "transparent"), [("gif", 5), ("png", 5), ("png", bytes([255] * 5 + [0, 128] + [255] * 57))], ids=str
)
def test_colours_of_a_palette_may_be_transparent(tmp_path, kind, transparent):
    picture = colour(IN_MEMORY)
    image = quantized(picture)
    index = numpy.asarray(image)
    image.save(put(tmp_path, f"palette.{kind}"), transparency=transparent, optimize=False)
    alpha = numpy.ones((IN_MEMORY, IN_MEMORY))
    alpha[index == 5] = 0
    if isinstance(transparent, bytes):
        alpha[index == 6] = 128 / 255
    assert_shows(load(tmp_path)[0], over_white(picture, alpha))


def test_one_colour_may_be_transparent(tmp_path):
    picture = colour(IN_MEMORY)
    write_png(put(tmp_path, "key.png"), levels(picture), bits=8, transparent=(85, 170, 0))
    alpha = 1.0 - (levels(picture) == (85, 170, 0)).all(axis=2)
    assert alpha.min() == 0
    assert_shows(load(tmp_path)[0], over_white(picture, alpha))


def test_orientation_in_exif_is_not_followed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    by_pillow(exif=exif, **FINE)(put(tmp_path, "turned.jpg"), grey(IN_MEMORY))
    assert_shows(load(tmp_path)[0], grey(IN_MEMORY))


UNCLEAR = {"12 of 32 bit": (4095, "i4"), "float to 1.3": (1.3, "f4"), "float to 100": (100, "f4"), "masks": (1, "i4")}


@pytest.mark.parametrize("kind", UNCLEAR)
def test_values_that_fit_no_usual_white_need_one(tmp_path, kind):
    white, dtype = UNCLEAR[kind]
    path = put(tmp_path, "unclear.tif")
    shown = numpy.rint(grey(IN_MEMORY)) if white == 1 else grey(IN_MEMORY)
    by_pillow(white=white, kind=dtype)(path, shown)
    with pytest.raises(ValueError, match=rf"^white: got .* {white:g}, expected .* 255, .*give the value") as error:
        load(tmp_path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert_shows(load(tmp_path, white=white)[0], shown)
    assert_shows(load(tmp_path, white=2 * white)[0], shown / 2)  # what was decoded with another white is not taken


@pytest.mark.parametrize("side", [IN_MEMORY, IN_FILES])
@pytest.mark.parametrize(("white", "kind"), [(255, "f4"), (65535, "i4")])
def test_white_is_of_the_data_set_and_not_of_a_picture(tmp_path, white, kind, side):
    """The dark pictures alone would do for floats up to 1, or integers up to 255."""
    dark = grey(side) / 256
    for name, picture in (("a", dark), ("b", dark), ("c", grey(side)), ("d", dark)):
        by_pillow(white=white, kind=kind)(put(tmp_path, f"{name}.tif"), picture)
    for found, wanted in zip(load(tmp_path, side), (dark, dark, grey(side), dark), strict=True):
        assert_shows(found, wanted)


def test_integers_and_floats_have_whites_of_their_own(tmp_path):
    by_pillow(white=65535, kind="i4")(put(tmp_path, "a.tif"), grey(IN_MEMORY))
    by_pillow(white=1, kind="f4")(put(tmp_path, "b.tif"), grey(IN_MEMORY))
    by_pillow()(put(tmp_path, "c.tif"), grey(IN_MEMORY))
    for found in load(tmp_path):
        assert_shows(found, grey(IN_MEMORY))


def test_a_float_picture_that_white_was_not_chosen_by_needs_one(tmp_path):
    path = put(tmp_path, "really a tiff.png")
    by_pillow(white=1, kind="f4", format="TIFF")(path, grey(IN_MEMORY))
    with pytest.raises(ValueError, match=r"^cannot read the image .*: white: got none") as error:
        load(tmp_path)
    assert str(path) in str(error.value)
    assert_shows(load(tmp_path, white=1)[0], grey(IN_MEMORY))


WRONG: dict[str, tuple[str, str]] = {
    "nan": ("f4", "NaN or infinite"),
    "inf": ("f4", "NaN or infinite"),
    "-1": ("f4", "from -1 to 1, expected 0 to 1"),
    "1.5": ("f4", "from 0 to 1.5, expected 0 to 1"),
    "-7": ("i4", "from -7 to 255, expected 0 to 255"),
    "300": ("i4", "from 0 to 300, expected 0 to 255"),
}


@pytest.mark.parametrize("side", [IN_MEMORY, IN_FILES])
@pytest.mark.parametrize("value", WRONG)
def test_values_outside_of_black_and_white_are_refused_with_the_path(tmp_path, value, side):
    kind, message = WRONG[value]
    values = levels(grey(side), 1 if kind == "f4" else 255, kind)
    Image.fromarray(values).save(put(tmp_path, "good.tif"))
    values[3, 4] = float(value)
    path = tmp_path / "pets" / "test" / "cat" / "wrong.tif"
    path.parent.mkdir(parents=True)
    Image.fromarray(values).save(path)
    with pytest.raises(ValueError, match=message) as error:
        data = load_data(tmp_path / "pets", image_size=side, val_fraction=0.0, workers=0)
        assert data.test is not None and list(data.test.batches(8))
    assert str(error.value).startswith(f"cannot read the image {path}: ") and "\n" not in str(error.value)


def test_nan_among_the_images_that_white_is_chosen_by(tmp_path):
    path = put(tmp_path, "nan.tif")
    by_pillow(white=float("nan"), kind="f4")(path, grey(IN_MEMORY))
    with pytest.raises(ValueError, match="NaN or infinite") as error:
        load(tmp_path)
    assert str(path) in str(error.value)


def signed_bytes(path: Path) -> None:
    write_tiff(path, numpy.full((8, 8), -5, "i1"), photometric=1)


def float_colours(path: Path) -> None:
    write_tiff(path, colour(IN_MEMORY).astype("f4"), photometric=2)


def deep_key(path: Path) -> None:
    write_png(path, levels(colour(IN_MEMORY), 65535, "u2"), bits=16, transparent=(1, 2, 3))


def huge(path: Path) -> None:
    path.write_bytes(b"P5 20000 20000 255\n")


def no_pixels(path: Path) -> None:
    write_png(path, numpy.zeros((0, 8), "u1"), bits=8)


@pytest.mark.parametrize("image_size", [None, IN_MEMORY, IN_FILES])
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.tif", signed_bytes),
        ("a.tif", float_colours),
        ("a.png", deep_key),
        ("a.pgm", huge),
        ("a.png", no_pixels),
        ("a.jpg", lambda path: path.write_bytes(b"")),
        ("a.webp", lambda path: path.write_text("no image")),
        ("a.gif", lambda path: path.write_bytes(b"GIF89a")),
    ],
    ids=["signed bytes", "float colours", "16 bit with a key", "huge", "no pixels", "empty", "text", "truncated"],
)
def test_what_cannot_be_shown_right_is_refused_with_the_path(tmp_path, name, write, image_size):
    path = put(tmp_path, name)
    write(path)
    with pytest.raises(ValueError, match=r"^cannot read the image ") as error:
        list(load_data(tmp_path / "pets", image_size=image_size, val_fraction=0.0, workers=0).train.batches(8))
    assert str(path) in str(error.value) and "\n" not in str(error.value)
