"""Files of every kind, sound or odd, made in memory; and how the tests read them."""

import io
import struct
import zlib
from functools import cache

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from serve.bundle.errors import InvalidImage
from serve.bundle.images import PixelBudget
from serve.bundle.pictures.reading import open_picture

WIDTH, HEIGHT = 48, 32
ANY = 1 << 20  # for at_least: never reduced

Tag = int | tuple[int, ...] | bytes


def colours() -> Image.Image:
    """A picture whose corners differ, so that no turn of it looks like another."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    bands = (columns * 5, rows * 7, (rows + columns) * 3)
    return Image.fromarray(np.stack(bands, axis=-1).astype(np.uint8))


def greys() -> Image.Image:
    """The same in grey."""
    return colours().convert("L")


def file_of(picture: Image.Image, format: str, **options: object) -> bytes:
    """A picture as the bytes of a file. The writer of HEIC isn't registered with Pillow."""
    file = io.BytesIO()
    if format == "HEIF":
        pillow_heif.from_pillow(picture).save(file, quality=-1, **options)
    else:
        picture.save(file, format, **options)
    return file.getvalue()


def read(data: bytes, at_least: int = ANY) -> Image.Image:
    """Read a file under the limits of a request."""
    return open_picture(data, PixelBudget().spend, at_least)


def fault(data: bytes) -> str:
    """The message with which a file is refused."""
    with pytest.raises(InvalidImage) as error:
        read(data)
    assert "\n" not in str(error.value)
    return str(error.value)


def differences(one: Image.Image, other: Image.Image) -> np.ndarray:
    """How far two pictures of one size are apart, pixel by pixel, in RGB."""
    pair = [np.asarray(picture.convert("RGB")).astype(int) for picture in (one, other)]
    assert pair[0].shape == pair[1].shape
    return np.abs(pair[0] - pair[1])


def chunk(kind: bytes, content: bytes, wrong: int = 0) -> bytes:
    """A PNG chunk; its checksum is off by ``wrong``."""
    checksum = zlib.crc32(kind + content) ^ wrong
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(bits: int, kind: int, rows: np.ndarray, *chunks: bytes, width: int = WIDTH) -> bytes:
    """A PNG of rows that are packed already: the header says how deep they are, and what kind."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    body = chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_with(*chunks: bytes) -> bytes:
    """A PNG with more chunks behind its header."""
    plain = file_of(colours(), "PNG")
    return plain[:33] + b"".join(chunks) + plain[33:]


def jpeg_with(*segments: tuple[int, bytes]) -> bytes:
    """A JPEG with more segments at its start."""
    plain = file_of(colours(), "JPEG", quality=95, subsampling=0)
    more = [b"\xff" + bytes([kind]) + struct.pack(">H", 2 + len(c)) + c for kind, c in segments]
    return plain[:2] + b"".join(more) + plain[2:]


def riff(kind: bytes, content: bytes) -> bytes:
    """A chunk of a RIFF file, such as a WebP."""
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def triples(*numbers: int) -> bytes:
    """Numbers of 24 bits, as a WebP has them."""
    return b"".join(number.to_bytes(3, "little") for number in numbers)


def webp_with(*chunks: tuple[bytes, bytes]) -> bytes:
    """A lossless WebP with more chunks at its end."""
    pixels = file_of(colours(), "WEBP", lossless=True)[12:]
    body = riff(b"VP8X", b"\x2c\0\0\0" + triples(WIDTH - 1, HEIGHT - 1)) + pixels
    return riff(b"RIFF", b"WEBP" + body + b"".join(riff(*more) for more in chunks))


def tiff(order: str, pixels: bytes, **tags: Tag) -> bytes:
    """A TIFF of one strip, ``WIDTH`` x ``HEIGHT`` greys of 8 bits unless tags say otherwise.

    Args:
        order: "<" or ">", as for struct.
        pixels: the strip.
        tags: ``t<number>``: one number, several, or the text of a note.
    """
    told: dict[int, Tag] = {256: WIDTH, 257: HEIGHT, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1}
    told |= {278: HEIGHT, 279: len(pixels)}
    told |= {int(name[1:]): value for name, value in tags.items()}
    pixels += b"\0" * (len(pixels) % 2)
    head = (b"II\x2a\0" if order == "<" else b"MM\0\x2a") + struct.pack(
        order + "I", 8 + len(pixels)
    )
    return head + pixels + directory(order, told, 8 + len(pixels))


def directory(order: str, tags: dict[int, Tag], at: int) -> bytes:
    """A TIFF directory at a place in a file. Text is of type ASCII, numbers are LONG or SHORT."""
    entries, values = struct.pack(order + "H", len(tags)), b""
    for tag, value in sorted(tags.items()):
        numbers = (value,) if isinstance(value, int) else value
        long = 256 <= tag <= 257 or tag in (273, 278, 279, 324, 325) or max(numbers) > 65535
        kind, letter = (2, "B") if isinstance(value, bytes) else (4, "I") if long else (3, "H")
        packed = struct.pack(f"{order}{len(numbers)}{letter}", *numbers).ljust(4, b"\0")
        if len(packed) > 4:
            place = at + 2 + 12 * len(tags) + 4 + len(values)
            values, packed = values + packed, struct.pack(order + "I", place)
        entries += struct.pack(order + "HHI", tag, kind, len(numbers)) + packed
    return entries + b"\0\0\0\0" + values


def exif(order: str = "<", **odd: Tag) -> bytes:
    """An EXIF block that says "orientation 6", with odd tags beside it."""
    tags = {0x0112: 6} | {int(name[1:]): value for name, value in odd.items()}
    head = (b"II\x2a\0" if order == "<" else b"MM\0\x2a") + struct.pack(order + "I", 8)
    return head + directory(order, tags, 8)


def with_type(block: bytes, tag: int, kind: int) -> bytes:
    """A little-endian directory one of whose tags has another type, with a count of 1."""
    at = block.index(struct.pack("<H", tag), 8)
    return block[: at + 2] + struct.pack("<HI", kind, 1) + block[at + 8 :]


def pack(samples: np.ndarray, bits: int, order: str = "<") -> bytes:
    """Samples as a TIFF holds them: rows begin at a byte, and 16 bits are in the file's order."""
    if bits == 16:
        return samples.astype(order + "u2").tobytes()
    rows = samples.reshape(len(samples), -1)
    digits = (rows[..., None] >> np.arange(bits)[::-1]) & 1
    return np.packbits(digits.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def deep_greys(white: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples from 0 to ``white``, [H, W], and the 8 bits that they are."""
    samples = np.linspace(0, white, WIDTH * HEIGHT).round().astype(np.int64).reshape(HEIGHT, WIDTH)
    return samples, np.round(samples * 255 / white).astype(np.int64)


def box(kind: bytes, content: bytes) -> bytes:
    """A box of an AVIF or HEIC."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


def declares(data: bytes, width: int, height: int) -> bytes:
    """An AVIF or HEIC that declares another size than it has."""
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def repeated_scans(times: int, width: int, height: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = file_of(Image.new("L", (width, height), 90), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * times + data[-2:]


@cache
def whole_files() -> dict[str, bytes]:
    """A valid small file of each kind."""
    scene = colours()
    return {
        "PNG": png_with(chunk(b"eXIf", exif()), chunk(b"tEXt", b"a\0b")),
        "palette PNG": file_of(scene.quantize(8), "PNG", transparency=bytes(range(8))),
        "JPEG": jpeg_with((0xE1, b"Exif\0\0" + exif())),
        "progressive JPEG": file_of(scene, "JPEG", progressive=True),
        "CMYK JPEG": file_of(scene.convert("CMYK"), "JPEG"),
        "WEBP": file_of(scene, "WEBP"),
        "lossless WEBP": webp_with((b"EXIF", exif())),
        "animated WEBP": file_of(scene, "WEBP", save_all=True, append_images=[greys()]),
        "GIF": file_of(scene.quantize(16), "GIF"),
        "BMP": file_of(scene, "BMP"),
        "TIFF": file_of(scene, "TIFF"),
        "LZW TIFF": file_of(scene, "TIFF", compression="tiff_lzw"),
        "JPEG TIFF": file_of(scene, "TIFF", compression="jpeg"),
        "fax TIFF": file_of(scene.convert("1"), "TIFF", compression="group4"),
        "deep TIFF": tiff(">", pack(deep_greys(4095)[0], 12), t258=12),
        "PPM": file_of(scene, "PPM"),
        "plain PPM": b"P2 3 2 100 1 2 3 50 60 100",
        "AVIF": file_of(scene, "AVIF"),
        "HEIF": file_of(scene, "HEIF"),
    }
