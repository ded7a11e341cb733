"""Image files of kinds that Pillow reads and does not write: TIFF and PNG, written as their specifications say."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy


def write_tiff(
    path: Path,
    samples: numpy.ndarray,
    *,
    photometric: int,
    bits: int | None = None,
    extra: int | None = None,
) -> None:
    """Write samples `[height, width]` or `[height, width, channels]`, uncompressed, in their own byte order and type.

    Args:
        path: of the file.
        samples: of any integer or float type. Of less than eight `bits`, or of twelve, unsigned integers, packed.
        photometric: 0 = white is zero, 1 = black is zero, 2 = RGB.
        bits: of a sample; none = those of the type.
        extra: what the last channel is: 0 = nothing known, 1 = premultiplied alpha, 2 = alpha.
    """
    height, width, *channels = samples.shape
    count = channels[0] if channels else 1
    order = ">" if samples.dtype.byteorder == ">" else "<"
    depth = bits or 8 * samples.dtype.itemsize
    data = samples.tobytes() if bits is None else _packed(samples, bits)
    tags = [
        (256, width),
        (257, height),
        (258, [depth] * count),
        (259, 1),
        (262, photometric),
        (273, 8),
        (277, count),
        (278, height),
        (279, len(data)),
        (339, [{"u": 1, "i": 2, "f": 3}[samples.dtype.kind]] * count),
    ]
    if extra is not None:
        tags.insert(9, (338, extra))
    start = 8 + len(data) + len(data) % 2
    after = start + 2 + 12 * len(tags) + 4
    entries, outside = b"", b""
    for tag, value in tags:
        if isinstance(value, list) and len(value) > 2:
            entries += struct.pack(order + "HHII", tag, 3, len(value), after + len(outside))
            outside += struct.pack(f"{order}{len(value)}H", *value)
        elif isinstance(value, list):
            entries += struct.pack(order + "HHI4s", tag, 3, len(value), struct.pack(f"{order}{len(value)}H", *value))
        else:
            entries += struct.pack(order + "HHII", tag, 4, 1, value)
    head = (b"MM" if order == ">" else b"II") + struct.pack(order + "HI", 42, start)
    directory = struct.pack(order + "H", len(tags)) + entries + struct.pack(order + "I", 0)
    path.write_bytes(head + data + b"\0" * (len(data) % 2) + directory + outside)


def write_png(path: Path, samples: numpy.ndarray, *, bits: int, transparent: Sequence[int] | None = None) -> None:
    """Write grey `[height, width]`, or grey with alpha, RGB or RGBA `[height, width, 2 to 4]`.

    Args:
        path: of the file.
        samples: unsigned integers of `bits` bits.
        bits: 1, 2, 4, 8 or 16; less than eight for grey alone.
        transparent: the value, or the colour, that is transparent.
    """
    height, width, *channels = samples.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels[0] if channels else 1]
    rows = samples.astype(">u2" if bits == 16 else "u1")
    packed = [row.tobytes() if bits >= 8 else _packed(row[None], bits) for row in rows]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))]
    if transparent is not None:
        chunks.append((b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)))
    chunks += [(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in packed))), (b"IEND", b"")]
    coded = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(coded))


def _packed(rows: numpy.ndarray, bits: int) -> bytes:
    """Pack unsigned integers, the highest bit first; each row starts at a byte."""
    unpacked = rows[..., None] >> numpy.arange(bits - 1, -1, -1) & 1
    return numpy.packbits(unpacked.reshape(len(rows), -1).astype("u1"), axis=1).tobytes()
