"""A picture of any mode to 8-bit RGB, with the meaning of its values kept.

Unsigned integers of up to 16 bits are fractions of their depth: white is 65535 in 16 bits, 4095 in 12. 32-bit
integers, signed 16-bit integers and floats do not state which value is white: files with values from 0 to 1 and from
0 to 255 have the same header. White is then a property of the data set (`choose_white`), never of one picture:
a picture that is scaled by its own brightest value loses its brightness.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy
    from PIL.Image import Image

    Values = numpy.ndarray[Any, Any]

__all__ = ["BACKGROUND", "WHITES", "choose_white", "open_values", "to_rgb"]

BACKGROUND = (255, 255, 255)
"""What shows through transparent pixels."""

WHITES: Mapping[str, tuple[int, ...]] = {"I": (255, 65535, 2**31 - 1, 2**32 - 1), "F": (1, 255, 65535)}
"""Values that can be white in pictures that state none, by Pillow's mode: 32-bit integers, floats."""

KINDS: Mapping[str, str] = {"I": "32-bit or signed integer", "F": "float"}

BITS_PER_SAMPLE, PHOTOMETRIC, PLANAR, SAMPLE_FORMAT = 258, 262, 284, 339
"""Tags of TIFF."""
WHITE_IS_ZERO, BLACK_IS_ZERO = 0, 1
CHUNKY = 1
UNSIGNED, SIGNED = 1, 2


def to_rgb(image: Image, whites: Mapping[str, float]) -> Image:
    """Return a picture in 8-bit RGB, transparent pixels over `BACKGROUND`.

    Args:
        image: the picture; of several frames, the current one.
        whites: the value of white in modes that state none, see `WHITES`.

    Raises:
        ValueError: the values have no certain meaning, or lie outside of 0 to white.
    """
    if _tag(image, PLANAR, CHUNKY) != CHUNKY and _tag(image, BITS_PER_SAMPLE, 8) > 8:
        raise ValueError("planes of more than 8 bits are not supported")
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    key_step = _key_step(image)  # must be read before the pixels are
    image.load()
    if image.mode in WHITES or image.mode.startswith("I;16"):
        return _over_background(_to_grey(image, whites))
    if image.mode == "L" and _tag(image, SAMPLE_FORMAT, UNSIGNED) == SIGNED:
        raise ValueError("8-bit integers with a sign are not supported")
    if key_step > 1:
        image.info["transparency"] *= key_step
    return _over_background(image)


def open_values(image: Image) -> Values | None:
    """Return the values `[height, width]` of a picture that does not state which of them is white; none if it does."""
    return _values(image) if _stated_white(image) is None else None


def choose_white(mode: str, largest: float) -> float:
    """Return the value of white in a data set: the smallest of `WHITES` that no value exceeds.

    The largest value must exceed half of it. If it does not, another white is as likely, such as 4095 where 12 bits
    are stored in 32.

    Args:
        mode: `I` or `F`.
        largest: of all values.

    Raises:
        ValueError: none of `WHITES` fits.
    """
    for white in WHITES[mode]:
        if white / 2 < largest < white * (255.5 / 255):  # up to what is rounded to white
            return white
    usual = ", ".join(map(str, WHITES[mode]))
    raise ValueError(f"got images of {KINDS[mode]} values up to {largest:.6g}, expected half to all of one of {usual}")


def _stated_white(image: Image) -> float | None:
    """Return the value of white, if the kind of file states it."""
    if image.mode.startswith("I;16"):
        return 2 ** _tag(image, BITS_PER_SAMPLE, 16) - 1
    if image.mode == "I" and image.format in ("PNG", "PPM"):
        return 65535  # Pillow stretches PPM's own depth to 16 bits
    return None if image.mode in WHITES else 255


def _to_grey(image: Image, whites: Mapping[str, float]) -> Image:
    import numpy
    from PIL import Image

    white = _stated_white(image) or whites.get(image.mode)
    if white is None:
        raise ValueError(
            f"white: got none, expected a number, as no other image of {KINDS[image.mode]} values was found"
        )
    values = _values(image)
    levels = numpy.rint(values * (255 / white))
    if levels.min() < 0 or levels.max() > 255:
        raise ValueError(f"values from {values.min():.6g} to {values.max():.6g}, expected 0 to {white:.6g}")
    if _tag(image, PHOTOMETRIC, BLACK_IS_ZERO) == WHITE_IS_ZERO:  # Pillow inverts up to 8 bits only
        levels = 255 - levels
    grey = Image.fromarray(levels.astype(numpy.uint8))
    if "transparency" not in image.info:
        return grey
    opaque = Image.fromarray((values != image.info["transparency"]).astype(numpy.uint8) * 255)
    return Image.merge("LA", (grey, opaque))


def _values(image: Image) -> Values:
    import numpy

    values = numpy.asarray(image)
    if image.mode == "I" and image.format == "TIFF" and _tag(image, SAMPLE_FORMAT, UNSIGNED) == UNSIGNED:
        values = values.view(numpy.uint32)  # Pillow reads the upper half as negative numbers
    if not numpy.isfinite(values).all():
        raise ValueError("it has values that are NaN or infinite")
    return values.astype(numpy.float64)


def _over_background(image: Image) -> Image:
    from PIL import Image

    if image.mode == "La":
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image.convert("RGB")
    background = Image.new("RGBA", image.size, BACKGROUND)
    return Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")


def _key_step(image: Image) -> int:
    """Return by how much Pillow multiplied a PNG's grey values, but not the one that it names as transparent.

    Raises:
        ValueError: of 16-bit colours Pillow keeps the upper bytes alone, in which others equal the transparent one.
    """
    from PIL.PngImagePlugin import PngImageFile

    if not isinstance(image, PngImageFile) or "transparency" not in image.info:
        return 1
    packing = str(image.tile[0][3])
    if packing == "RGB;16B":
        raise ValueError("16-bit colours of which one is transparent are not supported")
    return {"L;2": 85, "L;4": 17}.get(packing, 1)


def _tag(image: Image, number: int, default: int) -> int:
    """Return a tag of a TIFF, of several numbers the first; the default for other files."""
    value = getattr(image, "tag_v2", {}).get(number, default)
    return value[0] if isinstance(value, tuple) else value
