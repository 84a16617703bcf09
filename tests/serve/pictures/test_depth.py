"""Samples of every depth, palettes and inks: white is what the file declares to be white."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from .files import (
    HEIGHT,
    WIDTH,
    colours,
    deep_greys,
    differences,
    fault,
    file_of,
    greys,
    pack,
    png,
    read,
    tiff,
)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10, 12, 14, 16])
@pytest.mark.parametrize("deflated", [False, True])
def test_tiff_greys_of_every_depth(bits: int, photometric: int, order: str, deflated: bool) -> None:
    """White is the largest value of the declared depth, or black where white is declared zero."""
    samples, wanted = deep_greys((1 << bits) - 1)
    pixels = pack(samples, bits, order)
    if deflated:
        pixels = zlib.compress(pixels)

    picture = read(tiff(order, pixels, t258=bits, t262=photometric, t259=8 if deflated else 1))

    assert picture.mode == "L"
    wanted = wanted if photometric else 255 - wanted
    assert np.abs(np.asarray(picture) - wanted).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("low", "high"), [(0, 32767), (-32768, 32767), (-128, 127)])
def test_signed_tiff_is_read(low: int, high: int, order: str) -> None:
    """Signed greys fill their range, or its upper half where none is negative."""
    samples, wanted = deep_greys(high - low)
    size = 1 if high == 127 else 2

    pixels = (samples + low).astype(f"{order}i{size}").tobytes()
    picture = read(tiff(order, pixels, t258=8 * size, t339=2))

    assert np.abs(np.asarray(picture) - wanted).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_predictor_of_deep_greys(photometric: int, order: str) -> None:
    """Greys of 16 bits stored as differences from their neighbours are added up."""
    samples, wanted = deep_greys(65535)
    stored = np.diff(samples, axis=1, prepend=0) & 0xFFFF
    data = tiff(order, zlib.compress(pack(stored, 16, order)), t258=16, t259=8, t317=2, t262=1)
    inverted = data.replace(struct.pack(order + "HHIH", 262, 3, 1, 1),
                            struct.pack(order + "HHIH", 262, 3, 1, photometric))  # fmt: skip

    assert np.abs(np.asarray(read(inverted)) - (wanted if photometric else 255 - wanted)).max() <= 1


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("deflated", [False, True])
def test_tiff_colours_of_every_depth(bits: int, planar: int, deflated: bool) -> None:
    """Colours of 8, 12 and 16 bits are the same picture, in one plane or in three."""
    samples = np.asarray(colours()).astype(np.int64) * ((1 << bits) - 1) // 255
    planes = [samples] if planar == 1 else list(samples.transpose(2, 0, 1))
    packed = [zlib.compress(pack(p, bits)) if deflated else pack(p, bits) for p in planes]
    sizes = tuple(map(len, packed))
    starts = tuple(8 + sum(sizes[:n]) for n in range(len(sizes)))

    data = tiff("<", b"".join(packed), t258=(bits,) * 3, t259=8 if deflated else 1, t262=2, t277=3,
                t284=planar, t273=starts, t279=sizes)  # fmt: skip

    assert differences(read(data), colours()).max() <= 1


def test_tiles_of_odd_depth() -> None:
    """Tiles of 12 bits are put together, and what overhangs the picture is cut off."""
    samples, wanted = deep_greys(4095)
    wide = np.zeros((32, 96), np.int64)
    wide[:, :WIDTH] = samples
    tiles = [pack(wide[:, at : at + 32], 12) for at in (0, 32)]
    size = len(tiles[0])

    data = tiff("<", b"".join(tiles), t322=32, t323=32, t324=(8, 8 + size), t325=(size, size),
                t258=12)  # fmt: skip
    no_strips = data.replace(struct.pack("<HHI", 273, 4, 1), struct.pack("<HHI", 50000, 4, 1))

    assert np.abs(np.asarray(read(no_strips)) - wanted).max() <= 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tiff("<", bytes(9999), t258=12, t317=2, t259=8), "1 x 12 bits"),
        (tiff("<", bytes(9999), t258=12, t339=2), "1 x 12 bits"),
        (tiff("<", bytes(9999), t258=(8, 16), t277=2), "differ in depth"),
        (tiff("<", bytes(9999), t258=32), "32 bits"),
        (tiff("<", bytes(9999), t258=16, t339=3), "aren't whole numbers"),
        (file_of(Image.new("F", (9, 9)), "TIFF"), "32 bits"),
        (file_of(Image.new("LAB", (9, 9)), "TIFF"), "Lab colours"),
        (file_of(Image.new("RGB", (9, 9)), "TIFF", compression="lzma"), "compression 34925"),
    ],
)
def test_tiffs_that_are_not_read(data: bytes, words: str) -> None:
    """A TIFF of a rare kind is refused by its kind, and never guessed."""
    assert words in fault(data)


@pytest.mark.parametrize("white", [1, 3, 100, 255, 256, 1023, 4095, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_pgm_of_every_white(white: int, plain: bool) -> None:
    """A PGM's maxval is white, whatever it is, in bytes or in decimal numbers."""
    samples, wanted = deep_greys(white)
    head = f"P{2 if plain else 5} # a note\n{WIDTH} #another\n {HEIGHT}\n{white}\n".encode()
    if plain:
        body = b"# a note\n" + b"\n".join(b" ".join(b"%d" % v for v in row) for row in samples)
    else:
        body = samples.astype(">u2" if white > 255 else np.uint8).tobytes()

    assert np.abs(np.asarray(read(head + body)) - wanted).max() <= 1


@pytest.mark.parametrize("kind", [b"P1", b"P4"])
def test_pbm_is_black_where_it_says_1(kind: bytes) -> None:
    """In a PBM 1 is black, and the digits of a plain one needn't be spaced."""
    body = b"01 1#note\n110" if kind == b"P1" else bytes([0b01100000, 0b11000000])

    picture = np.asarray(read(kind + b"\n3 2\n" + body))

    assert picture.tolist() == [[255, 0, 0], [0, 0, 255]]


def test_ppm_is_read_in_both_writings() -> None:
    """Colours of a PPM are the same in bytes and in decimal numbers."""
    numbers = " ".join(str(value) for value in np.asarray(colours()).ravel())
    plain = b"P3\n%d %d\n255\n" % (WIDTH, HEIGHT) + numbers.encode()

    assert differences(read(file_of(colours(), "PPM")), colours()).max() == 0
    assert differences(read(plain), colours()).max() == 0


def test_png_greys_of_16_bits_are_rounded() -> None:
    """A PNG of 16 bits a channel is within 1 of the exact value, in grey and in colour."""
    samples, wanted = deep_greys(65535)
    grey = read(file_of(Image.fromarray(samples.astype(np.uint16)), "PNG"))
    colour = read(png(16, 2, np.repeat(samples[..., None], 3, axis=2).astype(">u2")))

    assert np.abs(np.asarray(grey) - wanted).max() <= 1
    assert np.abs(np.asarray(colour)[..., 1] - wanted).max() <= 1


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_is_the_right_way_round(format: str) -> None:
    """Ink of four colours becomes RGB, not its negative; JPEGs hold it inverted, TIFFs don't."""
    options = {"quality": 95} if format == "JPEG" else {}
    picture = read(file_of(colours().convert("CMYK"), format, **options))

    assert differences(picture, colours()).mean() < 4


def test_ycck_is_the_right_way_round() -> None:
    """An Adobe JPEG of YCCK has the colours of the CMYK that it was made of."""
    data = bytearray(file_of(Image.new("CMYK", (WIDTH, HEIGHT), (200, 60, 30, 10)), "JPEG"))
    data[data.index(b"Adobe") + 11] = 2  # the transform: the first three bands are YCbCr
    ycbcr = Image.new("YCbCr", (1, 1), (255 - 200, 255 - 60, 255 - 30))  # as Adobe inverts them
    red, green, blue = ycbcr.convert("RGB").getpixel((0, 0))
    # libjpeg takes the RGB of YCCK for 255 minus ink, and Pillow takes the result for inverted ink.
    wanted = Image.new("CMYK", (1, 1), (red, green, blue, 10)).convert("RGB").getpixel((0, 0))

    assert np.abs(np.array(read(bytes(data)).getpixel((9, 9))) - wanted).max() <= 4


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP", "TIFF"])
def test_palettes_and_bilevel_pictures(format: str) -> None:
    """A palette's colours and a bilevel picture's black and white come through."""
    for picture in (colours().quantize(16), greys().convert("1")):
        assert differences(read(file_of(picture, format)), picture).max() == 0


def test_palette_of_8_bits_in_a_tiff() -> None:
    """A TIFF palette that was written with 8-bit colours isn't black."""
    data = tiff("<", greys().tobytes(), t262=3, t320=tuple(range(256)) * 3)

    assert differences(read(data), greys()).max() == 0
