"""Transparency is laid over the ground that shows the ink, in every way to write it."""

import struct

import numpy as np
import pytest
from PIL import Image

from .files import HEIGHT, WIDTH, chunk, file_of, pack, png, read, riff, tiff, triples


def ink_on_nothing(ink: int) -> Image.Image:
    """A square of ink in the middle of a transparent picture of the opposite colour."""
    picture = Image.new("LA", (WIDTH, HEIGHT), (255 - ink, 0))
    picture.paste((ink, 255), (16, 8, 32, 24))
    return picture


def layers(ink: int) -> dict[str, bytes]:
    """Files with a band of opacity."""
    layer = ink_on_nothing(ink)
    rgba = layer.convert("RGBA")
    deep = (np.asarray(layer).astype(int) * 257).reshape(HEIGHT, -1)
    opacity = np.asarray(layer.getchannel("A"))
    multiplied = np.stack([np.minimum(np.asarray(layer)[..., 0], opacity), opacity], axis=-1)
    indices = np.stack([opacity & 1, opacity], axis=-1)
    palette = (257 * (255 - ink), 257 * ink, *[0] * 254) * 3
    return {
        "LA": file_of(layer, "PNG"),
        "RGBA": file_of(rgba, "PNG"),
        "RGBA WebP": file_of(rgba, "WEBP", lossless=True),
        "RGBA lossy WebP": file_of(rgba, "WEBP", quality=90),
        "RGBA AVIF": file_of(rgba, "AVIF", quality=95),
        "RGBA HEIC": file_of(rgba, "HEIF"),
        "RGBA TIFF": file_of(rgba, "TIFF"),
        "RGBa TIFF": tiff("<", rgba.convert("RGBa").tobytes(), t258=(8,) * 4, t262=2, t277=4,
                          t338=1),
        "La TIFF": tiff("<", multiplied.tobytes(), t258=(8, 8), t277=2, t338=1),
        "PA TIFF": tiff("<", indices.tobytes(), t258=(8, 8), t262=3, t277=2, t338=2, t320=palette),
        "LA TIFF of 12 bits": tiff("<", pack(deep >> 4, 12), t258=(12, 12), t277=2, t338=2),
        "LA TIFF of 16 bits": tiff(">", pack(deep, 16, ">"), t258=(16, 16), t277=2, t338=2),
        "La TIFF of 16 bits": tiff("<", (multiplied.astype("<u2") * 257).tobytes(), t258=(16, 16),
                                   t277=2, t338=1),
    }  # fmt: skip


def keys(ink: int) -> dict[str, bytes]:
    """Files one of whose colours is transparent."""
    square = np.asarray(ink_on_nothing(ink).getchannel("A")) > 0
    indexed = Image.fromarray(square.astype(np.uint8)).convert("P")
    indexed.putpalette([255 - ink] * 3 + [ink] * 3)
    grey, key = np.where(square, ink, 255 - ink).astype(np.uint8), 255 - ink

    def greys(bits: int, rows: np.ndarray) -> bytes:
        value = key * 257 >> (16 - bits)
        return png(bits, 0, rows, chunk(b"tRNS", struct.pack(">H", value)))

    deep = (grey.astype(">u2") * 257).astype(">u2")
    rgb, rgb16 = (np.repeat(each[..., None], 3, 2) for each in (grey, deep))
    return {
        "P one index": file_of(indexed, "PNG", transparency=0),
        "P bytes": file_of(indexed, "PNG", transparency=bytes([0, 254])),
        "GIF": file_of(indexed, "GIF", transparency=0),
        "grey of 1 bit": greys(1, np.packbits(grey > 127, axis=1)),
        "grey of 4 bits": greys(4, (grey[:, ::2] & 0xF0) | (grey[:, 1::2] >> 4)),
        "grey": greys(8, grey),
        "grey of 16 bits": greys(16, deep),
        "RGB": png(8, 2, rgb, chunk(b"tRNS", struct.pack(">3H", *[key] * 3))),
        "RGB of 16 bits": png(16, 2, rgb16, chunk(b"tRNS", struct.pack(">3H", *[key * 257] * 3))),
    }


FILES = {ink: layers(ink) | keys(ink) for ink in (0, 255)}


@pytest.mark.parametrize("ink", [0, 255])
@pytest.mark.parametrize("kind", list(FILES[0]))
def test_transparency_is_laid_over_what_shows_the_ink(kind: str, ink: int) -> None:
    """White ink on nothing is seen on black, black ink on white, in every kind of transparency."""
    picture = np.asarray(read(FILES[ink][kind]).convert("L")).astype(int)

    # 12: lossy WebP, AVIF and HEIC round what they store
    assert abs(picture[16, 24] - ink) <= 12
    assert abs(picture[2, 2] - (255 - ink)) <= 12


def test_half_transparent_ink_is_weighed_by_its_opacity() -> None:
    """Much faint dark doesn't outweigh a little opaque light."""
    picture = Image.new("LA", (100, 1), (0, 2))
    picture.paste((255, 255), (0, 0, 10, 1))

    assert read(file_of(picture, "PNG")).getpixel((99, 0)) == 0


def test_nothing_but_transparency_is_white() -> None:
    """A picture without any ink is white paper."""
    picture = read(file_of(Image.new("RGBA", (9, 9), (255, 255, 255, 0)), "PNG"))

    assert picture.getextrema() == ((255, 255),) * 3


def test_first_frame_of_a_webp_lies_on_its_canvas() -> None:
    """An animated WebP's first frame may be smaller than its canvas, which is transparent."""
    frame = file_of(Image.new("RGB", (8, 8), "black"), "WEBP", lossless=True)[12:]
    anmf = riff(b"ANMF", triples(2, 1, 7, 7, 100) + b"\0" + frame)
    canvas = riff(b"VP8X", b"\x12\0\0\0" + triples(47, 31))
    data = riff(b"RIFF", b"WEBP" + canvas + riff(b"ANIM", bytes(6)) + anmf * 3)

    picture = np.asarray(read(data).convert("L"))

    assert picture.shape == (32, 48)
    assert np.argwhere(picture == 0).min(axis=0).tolist() == [2, 4]
    assert (picture == 0).sum() == 64
