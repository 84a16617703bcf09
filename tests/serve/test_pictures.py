"""Image files to upright 8-bit pictures: the pixels decide, and every fault has its own words."""

import builtins
import io
import random
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps

from serve.bundle.errors import InvalidImage, PayloadTooLarge
from serve.bundle.images import PixelBudget
from serve.bundle.pictures import parts
from serve.bundle.pictures.kinds import FORMATS, SUFFIXES
from serve.bundle.pictures.reading import open_picture

WIDTH, HEIGHT = 48, 32
ANY = 1 << 20  # for at_least: never reduced


def colours() -> Image.Image:
    """A picture whose corners differ, so that no turn of it looks like another."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    bands = (columns * 5, rows * 7, (rows + columns) * 3)
    return Image.fromarray(np.stack(bands, axis=-1).astype(np.uint8))


def greys() -> Image.Image:
    """The same in grey."""
    return colours().convert("L")


def file_of(picture: Image.Image, format: str, **options: object) -> bytes:
    """A picture as the bytes of a file."""
    if format == "HEIF":
        return heif_of(picture, **options)
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def heif_of(picture: Image.Image, **options: object) -> bytes:
    """A picture as a HEIC, without registering the writer with Pillow."""
    file = io.BytesIO()
    pillow_heif.from_pillow(picture).save(file, quality=-1, **options)
    return file.getvalue()


def read(data: bytes, at_least: int = ANY) -> Image.Image:
    """Read a file under the limits of a request."""
    return open_picture(data, PixelBudget().spend, at_least)


def fault(data: bytes) -> str:
    """The message with which a file is refused."""
    with pytest.raises(InvalidImage) as error:
        read(data)
    message = str(error.value)
    assert "\n" not in message
    return message


def far(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of two pictures of one size, in RGB."""
    pair = [np.asarray(picture.convert("RGB")).astype(int) for picture in (one, other)]
    assert pair[0].shape == pair[1].shape
    return int(np.abs(pair[0] - pair[1]).max())


def directory(order: str, tags: dict[int, tuple[int, bytes]], at: int) -> bytes:
    """A TIFF directory at a place in a file: tag → type and packed values."""
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 10: 8}
    entries, values = struct.pack(order + "H", len(tags)), b""
    after = at + 2 + 12 * len(tags) + 4
    for tag, (kind, packed) in sorted(tags.items()):
        place = packed.ljust(4, b"\0")
        if len(packed) > 4:
            place = struct.pack(order + "I", after + len(values))
            values += packed
        entries += struct.pack(order + "HHI", tag, kind, len(packed) // sizes[kind]) + place
    return entries + b"\0\0\0\0" + values


def exif(order: str = "<", **odd: tuple[int, bytes]) -> bytes:
    """An EXIF block that says "orientation 6", with odd tags beside it."""
    tags = {int(name[1:]): value for name, value in odd.items()}
    tags.setdefault(0x0112, (3, struct.pack(order + "H", 6)))
    head = (b"II\x2a\0" if order == "<" else b"MM\0\x2a") + struct.pack(order + "I", 8)
    return head + directory(order, tags, 8)


def tiff(order: str, pixels: bytes, **tags: object) -> bytes:
    """A TIFF of one strip; tags are t<number>=value, tuple or (type, bytes) in a dict."""
    told = {256: WIDTH, 257: HEIGHT, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: HEIGHT}
    told[279] = len(pixels)
    told |= {int(name[1:]): value for name, value in tags.items()}
    packed = {}
    for tag, value in told.items():
        if isinstance(value, dict):
            packed[tag] = (value["type"], value["bytes"])
        else:
            values = value if isinstance(value, tuple) else (value,)
            letter = "I" if tag in (273, 279, 256, 257, 324, 325) else "H"
            kind = 4 if letter == "I" else 3
            packed[tag] = (kind, struct.pack(f"{order}{len(values)}{letter}", *values))
    at = 8 + len(pixels) + len(pixels) % 2
    head = (b"II\x2a\0" if order == "<" else b"MM\0\x2a") + struct.pack(order + "I", at)
    return head + pixels + b"\0" * (len(pixels) % 2) + directory(order, packed, at)


def chunk(kind: bytes, content: bytes, wrong: int = 0) -> bytes:
    """A PNG chunk; its checksum is off by ``wrong``."""
    checksum = zlib.crc32(kind + content) ^ wrong
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_with(*chunks: bytes, picture: Image.Image | None = None) -> bytes:
    """A PNG with more chunks behind its header."""
    plain = file_of(picture or colours(), "PNG")
    return plain[:33] + b"".join(chunks) + plain[33:]


def jpeg_with(*segments: tuple[int, bytes]) -> bytes:
    """A JPEG with more segments at its start."""
    plain = file_of(colours(), "JPEG", quality=95, subsampling=0)
    more = [b"\xff" + bytes([kind]) + struct.pack(">H", 2 + len(c)) + c for kind, c in segments]
    return plain[:2] + b"".join(more) + plain[2:]


def webp_with(*chunks: tuple[bytes, bytes]) -> bytes:
    """A lossless WebP with more chunks at its end."""
    pixels = file_of(colours(), "WEBP", lossless=True)[12:]
    sides = struct.pack("<I", WIDTH - 1)[:3] + struct.pack("<I", HEIGHT - 1)[:3]
    body = riff(b"VP8X", b"\x2c\0\0\0" + sides) + pixels
    return riff(b"RIFF", b"WEBP" + body + b"".join(riff(*more) for more in chunks))


def riff(kind: bytes, content: bytes) -> bytes:
    """A RIFF chunk."""
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def avif_with(block: bytes) -> bytes:
    """An AVIF with an EXIF block, which Pillow would refuse to write."""
    marker = Image.Exif()
    marker[0x010E] = "x" * (len(block) - 26)  # makes a block of the same length
    length = len(marker.tobytes())
    plain = file_of(colours(), "AVIF", quality=100, subsampling="4:4:4", exif=marker)
    at = plain.index(marker.tobytes()[6:])
    return plain[:at] + block.ljust(length - 6, b"\0")[: length - 6] + plain[at + length - 6 :]


# Width, height, planes, bits and compression of a BMP.
BMP_RAW = struct.pack("<iihhi", 9, 9, 1, 8, 0)
BMP_RUNS = struct.pack("<iihhi", 2001, 1000, 1, 8, 1)
BIG_TEXT = zlib.compress(b"x" * 2_000_000)
RATIONAL_MAKE = exif(t271=(5, struct.pack("<II", 1, 2)))
UPRIGHT_MAKE = RATIONAL_MAKE.replace(struct.pack("<H", 6), struct.pack("<H", 1), 1)
TEXT_RESOLUTION = exif(t282=(2, b"three hundred\0"), t296=(10, struct.pack("<ii", -1, 1)))
LONG_NOTE = {"type": 7, "bytes": bytes(range(256)) * 8192}


@pytest.mark.parametrize(
    "data",
    [
        png_with(chunk(b"zTXt", b"note\0\0" + BIG_TEXT)),
        png_with(chunk(b"iCCP", b"icc\0\0" + BIG_TEXT)),
        png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BIG_TEXT)),
        png_with(chunk(b"eXIf", b"II\x2a\0\xff\xff\xff\xff")),
        png_with(chunk(b"eXIf", b"nonsense")),
        png_with(chunk(b"tEXt", b"note\0text", wrong=1)),
        png_with(chunk(b"iCCP", b"icc\0\0" + BIG_TEXT, wrong=1)),
        png_with(chunk(b"gAMA", b"")),
        png_with(chunk(b"cHRM", b"short", wrong=9)),
        png_with(chunk(b"acTL", b"")),
        jpeg_with((0xE2, b"ICC_PROFILE\0" + b"\xff" * 60_000)),
        jpeg_with((0xE0, b"JFIF"), (0xEE, b"Adobe"), (0xFE, b"\xff\xda" * 1000)),
        jpeg_with((0xE1, b"Exif\0\0"), (0xED, b"Photoshop 3.0\0" + b"8BIM" * 9)),
        jpeg_with((0xE2, b"MPF\0MM\0\x2a\0\0\0\x08\0\x01nonsense")),
        webp_with((b"EXIF", b"II\x2a\0\xff\xff\xff\xff"), (b"XMP ", b"<" * 1_200_000)),
        webp_with((b"ICCP", b"nonsense")),
        tiff("<", greys().tobytes(), t282={"type": 2, "bytes": b"three hundred\0"}, t296=65535),
        tiff("<", greys().tobytes(), t700=LONG_NOTE, t34675=LONG_NOTE, t34665=99_999_999 % 65536),
        tiff("<", greys().tobytes(), t279=99_999_999),
        file_of(colours(), "HEIF", chroma=444, exif=b"Exif\0\0" + UPRIGHT_MAKE),
        avif_with(RATIONAL_MAKE),  # an AVIF is turned by its boxes alone
    ],
    ids=[
        *("PNG long zTXt", "PNG long iCCP", "PNG long XMP", "PNG EXIF beyond its end"),
        *("PNG EXIF of text", "PNG checksum of tEXt", "PNG checksum of iCCP", "PNG empty gAMA"),
        *("PNG short cHRM", "PNG empty acTL", "JPEG odd ICC", "JPEG short APPn", "JPEG empty EXIF"),
        *("JPEG odd MPF", "WebP odd EXIF and long XMP", "WebP odd ICC", "TIFF text resolution"),
        *("TIFF long notes", "TIFF wrong strip size", "HEIC rational Make", "AVIF rational Make"),
    ],
)
def test_notes_never_make_a_picture_unreadable(data: bytes) -> None:
    """A picture with damaged, odd or oversized metadata has the pixels it has without them."""
    # JPEG, AVIF and HEIC round a little, most of all at the edges where 256 wraps to 0.
    grey = data[:2] == b"II"

    assert np.abs(difference(read(data), greys() if grey else colours())).mean() < 2


def difference(one: Image.Image, other: Image.Image) -> np.ndarray:
    """How far two pictures are apart, pixel by pixel, in RGB."""
    pair = [np.asarray(picture.convert("RGB")).astype(int) for picture in (one, other)]
    assert pair[0].shape == pair[1].shape
    return pair[0] - pair[1]


@pytest.mark.parametrize("block", [RATIONAL_MAKE, TEXT_RESOLUTION, exif(">")])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_read_beside_odd_tags(kind: str, block: bytes) -> None:
    """Orientation 6 counts though another tag of the block can't be rewritten."""
    files = {
        "JPEG": lambda: jpeg_with((0xE1, b"Exif\0\0" + block)),
        "PNG": lambda: png_with(chunk(b"eXIf", block)),
        "WEBP": lambda: webp_with((b"EXIF", block)),
    }

    picture = read(files[kind]())

    assert picture.size == (HEIGHT, WIDTH)
    assert np.abs(difference(picture, colours().transpose(Image.Transpose.ROTATE_270))).mean() < 2


@pytest.mark.parametrize("value", [*range(10), 65535])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_every_orientation_is_applied_once(kind: str, value: int) -> None:
    """Each of the eight turns is made to the pixels, and any other value makes none."""
    note = Image.Exif()
    note[0x0112] = value if kind not in ("AVIF", "HEIF") or 1 <= value <= 8 else 1
    options: dict[str, object] = {"exif": note}
    if kind == "AVIF":
        options |= {"quality": 100, "subsampling": "4:4:4"}
    if kind == "HEIF":
        options = {"exif": note.tobytes(), "chroma": 444}
    if kind == "JPEG":
        options |= {"quality": 95, "subsampling": 0}
    if kind == "WEBP":
        options |= {"lossless": True}
    plain = colours()
    plain.getexif()[0x0112] = note[0x0112]

    picture = read(file_of(colours(), kind, **options))

    assert np.abs(difference(picture, ImageOps.exif_transpose(plain))).mean() < 3


def deep_greys(white: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples from 0 to ``white``, [H, W], and the 8 bits that they are."""
    samples = np.linspace(0, white, WIDTH * HEIGHT).round().astype(np.int64).reshape(HEIGHT, WIDTH)
    return samples, np.round(samples * 255 / white).astype(np.int64)


def pack(samples: np.ndarray, bits: int, order: str = "<") -> bytes:
    """Samples as a TIFF holds them: rows begin at a byte, and 16 bits are in the file's order."""
    if bits == 16:
        return samples.astype(order + "u2").tobytes()
    rows = samples.reshape(len(samples), -1)
    digits = (rows[..., None] >> np.arange(bits)[::-1]) & 1
    return np.packbits(digits.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


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
@pytest.mark.parametrize(("low", "high"), [(0, 32767), (-32768, 32767)])
def test_signed_tiff_is_read(low: int, high: int, order: str) -> None:
    """Signed greys fill their range, or its upper half where none is negative."""
    samples, wanted = deep_greys(high - low)
    pixels = (samples + low).astype(order + "i2").tobytes()

    picture = read(tiff(order, pixels, t258=16, t339=2))

    assert np.abs(np.asarray(picture) - wanted).max() <= 1


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("deflated", [False, True])
def test_tiff_colours_of_every_depth(bits: int, planar: int, deflated: bool) -> None:
    """Colours of 8, 12 and 16 bits are the same picture, in one plane or in three."""
    white = (1 << bits) - 1
    samples = np.asarray(colours()).astype(np.int64) * white // 255
    planes = (
        [pack(samples, bits)] if planar == 1 else [pack(samples[..., n], bits) for n in (0, 1, 2)]
    )
    planes = [zlib.compress(plane) for plane in planes] if deflated else planes
    sizes = tuple(len(plane) for plane in planes)
    starts = tuple(8 + sum(sizes[:n]) for n in range(len(sizes)))
    told = {
        "t258": (bits,) * 3,
        "t262": 2,
        "t277": 3,
        "t284": planar,
        "t273": starts,
        "t279": sizes,
    }

    picture = read(tiff("<", b"".join(planes), t259=8 if deflated else 1, **told))

    assert far(picture, colours()) <= 1


@pytest.mark.parametrize("extra", [1, 2])
@pytest.mark.parametrize("predictor", [1, 2])
def test_deep_tiff_with_transparency(extra: int, predictor: int) -> None:
    """Greys of 16 bits with alpha, multiplied or not, are laid over the ground that shows them."""
    samples = np.zeros((HEIGHT, WIDTH, 2), np.uint16)
    samples[8:24, 8:40] = 65535  # white ink on nothing
    stored = samples.copy()
    if predictor == 2:
        stored[:, 1:] -= samples[:, :-1]
    pixels = zlib.compress(stored.astype("<u2").tobytes())

    told = {"t258": (16, 16), "t277": 2, "t338": extra, "t317": predictor, "t259": 8}
    picture = np.asarray(read(tiff("<", pixels, **told)))

    assert picture[16, 20] == 255
    assert picture[0, 0] == 0


def test_tiles_of_odd_depth() -> None:
    """Tiles of 12 bits are put together, and what overhangs the picture is cut off."""
    samples, wanted = deep_greys(4095)
    wide = np.zeros((32, 96), np.int64)
    wide[:, :WIDTH] = samples
    tiles = [pack(wide[:, at : at + 32], 12) for at in (0, 32)]
    starts = (8, 8 + len(tiles[0]))
    plain = {"t322": 32, "t323": 32, "t324": starts, "t325": (len(tiles[0]),) * 2, "t258": 12}
    data = tiff("<", b"".join(tiles), **plain)
    data = data.replace(struct.pack("<HHI", 273, 4, 1), struct.pack("<HHI", 50000, 4, 1))

    assert np.abs(np.asarray(read(data)) - wanted).max() <= 1


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
    raw = file_of(colours(), "PPM")
    numbers = " ".join(str(value) for value in np.asarray(colours()).ravel())
    plain = b"P3\n%d %d\n255\n" % (WIDTH, HEIGHT) + numbers.encode()

    assert far(read(raw), colours()) == 0
    assert far(read(plain), colours()) == 0


def test_png_greys_of_16_bits_are_rounded() -> None:
    """A PNG of 16 bits a channel is within 1 of the exact value, in grey and in colour."""
    samples, wanted = deep_greys(65535)
    grey = read(file_of(Image.fromarray(samples.astype(np.uint16)), "PNG"))
    colour = read(png(16, 2, np.repeat(samples[..., None], 3, axis=2).astype(">u2")))

    assert np.abs(np.asarray(grey) - wanted).max() <= 1
    assert np.abs(np.asarray(colour)[..., 1] - wanted).max() <= 1


def png(bits: int, kind: int, rows: np.ndarray, *chunks: bytes, width: int = WIDTH) -> bytes:
    """A PNG of rows that are packed already: the header says how deep they are, and what kind."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    body = chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_is_the_right_way_round(format: str) -> None:
    """Ink of four colours becomes RGB, not its negative; JPEGs hold it inverted, TIFFs don't."""
    options = {"quality": 95} if format == "JPEG" else {}
    picture = read(file_of(colours().convert("CMYK"), format, **options))

    assert np.abs(difference(picture, colours())).mean() < 4


def test_ycck_is_the_right_way_round() -> None:
    """An Adobe JPEG of YCCK has the colours of the CMYK that it was made of."""
    data = bytearray(file_of(Image.new("CMYK", (WIDTH, HEIGHT), (200, 60, 30, 10)), "JPEG"))
    data[data.index(b"Adobe") + 11] = 2  # the transform: the first three bands are YCbCr
    ycbcr = Image.new("YCbCr", (1, 1), (255 - 200, 255 - 60, 255 - 30))  # as Adobe inverts them
    red, green, blue = ycbcr.convert("RGB").getpixel((0, 0))
    # libjpeg takes the RGB of YCCK for 255 minus ink, and Pillow takes the result for inverted ink.
    wanted = Image.new("CMYK", (1, 1), (red, green, blue, 10)).convert("RGB").getpixel((0, 0))

    assert np.abs(np.array(read(bytes(data)).getpixel((9, 9))) - wanted).max() <= 4


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_palettes_and_bilevel_pictures(format: str) -> None:
    """A palette's colours and a bilevel picture's black and white come through."""
    lossless = {"lossless": True} if format == "WEBP" else {}
    palette = colours().quantize(16)
    for picture in (palette, greys().convert("1")):
        found = read(
            file_of(picture if format != "WEBP" else picture.convert("RGB"), format, **lossless)
        )

        assert far(found, picture) == 0


def test_palette_of_8_bits_in_a_tiff() -> None:
    """A TIFF palette that was written with 8-bit colours isn't black."""
    levels = tuple(range(256))
    data = tiff("<", greys().tobytes(), t262=3, t320=levels * 3)

    assert far(read(data), greys()) == 0


def ink_on_nothing(ink: int) -> Image.Image:
    """A square of ink in the middle of a transparent picture of the opposite colour."""
    picture = Image.new("LA", (WIDTH, HEIGHT), (255 - ink, 0))
    picture.paste((ink, 255), (16, 8, 32, 24))
    return picture


def transparent_files(ink: int) -> dict[str, bytes]:
    """Every way in which a file can be transparent around some ink."""
    layer = ink_on_nothing(ink)
    squares = np.asarray(layer.getchannel("A")) > 0
    indexed = Image.fromarray(squares.astype(np.uint8), "L")
    indexed = indexed.convert("P")
    indexed.putpalette([255 - ink] * 3 + [ink] * 3)
    grey = np.where(squares, ink, 255 - ink).astype(np.uint8)
    key = 255 - ink
    tiff_palette = indexed.copy()
    return {
        "LA": file_of(layer, "PNG"),
        "RGBA": file_of(layer.convert("RGBA"), "PNG"),
        "RGBA WebP": file_of(layer.convert("RGBA"), "WEBP", lossless=True),
        "RGBA lossy WebP": file_of(layer.convert("RGBA"), "WEBP", quality=90),
        "RGBA AVIF": file_of(layer.convert("RGBA"), "AVIF", quality=95),
        "RGBA HEIC": file_of(layer.convert("RGBA"), "HEIF"),
        "RGBA TIFF": file_of(layer.convert("RGBA"), "TIFF"),
        "RGBa TIFF": tiff(
            "<",
            layer.convert("RGBA").convert("RGBa").tobytes(),
            t258=(8,) * 4,
            t262=2,
            t277=4,
            t338=1,
        ),
        "La TIFF": tiff("<", premultiplied(layer), t258=(8, 8), t277=2, t338=1),
        "PA TIFF": tiff(
            "<",
            np.stack([np.asarray(tiff_palette), squares * np.uint8(255)], axis=-1).tobytes(),
            t258=(8, 8),
            t262=3,
            t277=2,
            t338=2,
            t320=tuple([257 * key, 257 * ink] + [0] * 254) * 3,
        ),
        "P one index": file_of(indexed, "PNG", transparency=0),
        "P bytes": file_of(indexed, "PNG", transparency=bytes([0, 254])),
        "GIF": file_of(indexed, "GIF", transparency=0),
        "grey": png(8, 0, grey, chunk(b"tRNS", struct.pack(">H", key))),
        "grey of 1 bit": png(
            1, 0, np.packbits(grey > 127, axis=1), chunk(b"tRNS", struct.pack(">H", key & 1))
        ),
        "grey of 4 bits": png(
            4, 0, pack_nibbles(grey >> 4), chunk(b"tRNS", struct.pack(">H", key >> 4))
        ),
        "grey of 16 bits": png(
            16,
            0,
            (grey.astype(">u2") * 257).astype(">u2"),
            chunk(b"tRNS", struct.pack(">H", key * 257)),
        ),
        "RGB": png(
            8,
            2,
            np.repeat(grey[..., None], 3, 2),
            chunk(b"tRNS", struct.pack(">3H", key, key, key)),
        ),
        "RGB of 16 bits": png(
            16,
            2,
            np.repeat((grey.astype(np.uint16) * 257).astype(">u2")[..., None], 3, 2),
            chunk(b"tRNS", struct.pack(">3H", *[key * 257] * 3)),
        ),
    }


def premultiplied(layer: Image.Image) -> bytes:
    """Greys multiplied by their opacity, and the opacity."""
    pixels = np.asarray(layer).astype(int)
    return (
        np.stack([pixels[..., 0] * pixels[..., 1] // 255, pixels[..., 1]], axis=-1)
        .astype(np.uint8)
        .tobytes()
    )


def pack_nibbles(samples: np.ndarray) -> np.ndarray:
    """Samples of 4 bits, two in a byte."""
    return (samples[:, ::2] << 4 | samples[:, 1::2]).astype(np.uint8)


@pytest.mark.parametrize("ink", [0, 255])
@pytest.mark.parametrize("kind", list(transparent_files(0)))
def test_transparency_is_laid_over_what_shows_the_ink(kind: str, ink: int) -> None:
    """White ink on nothing is seen on black, black ink on white, in every kind of transparency."""
    picture = np.asarray(read(transparent_files(ink)[kind]).convert("L")).astype(int)

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


@pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP", "TIFF", "AVIF"])
def test_first_frame_is_read(format: str) -> None:
    """Of several frames or pages, the first is the picture."""
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "lime", "blue")]
    data = file_of(frames[0], format, save_all=True, append_images=frames[1:])

    assert np.abs(np.array(read(data).getpixel((9, 9))) - (255, 0, 0)).max() <= 3


def test_first_frame_of_a_webp_lies_on_its_canvas() -> None:
    """An animated WebP's first frame may be smaller than its canvas, which is transparent."""
    frame = file_of(Image.new("RGB", (8, 8), "black"), "WEBP", lossless=True)[12:]
    sides = b"".join(struct.pack("<I", n)[:3] for n in (2, 1, 7, 7, 100))
    anmf = riff(b"ANMF", sides + b"\0" + frame)
    canvas = riff(b"VP8X", b"\x12\0\0\0" + b"".join(struct.pack("<I", n - 1)[:3] for n in (48, 32)))
    data = riff(b"RIFF", b"WEBP" + canvas + riff(b"ANIM", bytes(6)) + anmf * 3)

    picture = np.asarray(read(data).convert("L"))

    assert picture.shape == (32, 48)
    assert np.argwhere(picture == 0).min(axis=0).tolist() == [2, 4]
    assert (picture == 0).sum() == 64


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><title>secret</title>", "HTML page"),
        (b"\n <HTML>secret", "HTML page"),
        (b'{"secret": 1}', "JSON"),
        (b"secret text", "text"),
        ("secrét".encode(), "text"),
        (b"%PDF-1.7 secret", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"PK\x03\x04secret", "zip"),
        (b"<svg xmlns=secret>", "SVG"),
        (b"iVBORw0KGgoAAAANSUhEUg", "base64"),
        (b"\0\0\0\x18ftypisom\0\0\0\0mp42", "video"),
        (np.random.default_rng(0).bytes(4096), "encrypted or compressed"),
        (bytes(100), "zeros"),
        (b"Salted__secret\x9f", "encrypted"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, words: str) -> None:
    """The message says what the bytes look like, and never shows them."""
    message = fault(data)

    assert words in message
    assert "secr" not in message
    assert not data or ("PNG, JPEG" in message and f"{len(data):,} bytes" in message)


def whole_files() -> dict[str, bytes]:
    """A valid small file of each kind."""
    scene = colours()
    heic = file_of(scene, "HEIF")
    files = {
        "PNG": png_with(chunk(b"eXIf", exif()), chunk(b"tEXt", b"a\0b")),
        "palette PNG": file_of(scene.quantize(8), "PNG", transparency=bytes(range(8))),
        "JPEG": jpeg_with((0xE1, b"Exif\0\0" + exif())),
        "progressive JPEG": file_of(scene, "JPEG", progressive=True),
        "CMYK JPEG": file_of(scene.convert("CMYK"), "JPEG"),
        "WEBP": file_of(scene, "WEBP"),
        "lossless WEBP": webp_with((b"EXIF", exif())),
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
        "HEIF": heic,
    }
    files["animated WEBP"] = file_of(scene, "WEBP", save_all=True, append_images=[greys()])
    return files


@pytest.mark.parametrize("kind", list(whole_files()))
def test_cut_files_say_so(kind: str) -> None:
    """A file cut in the middle of its pixels is refused, with its kind named."""
    data = whole_files()[kind]
    message = fault(data[: len(data) // 2])

    assert any(name in message for name in FORMATS)
    if kind not in ("AVIF", "HEIF"):
        assert "truncated" in message or "can't be decoded" in message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF"])
def test_truncation_is_named(kind: str) -> None:
    """The last bytes are missing: the message says that, and not which formats are read."""
    data = whole_files()[kind]

    assert "ends before its last row" in fault(data[: len(data) * 3 // 4])


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT"])
def test_checksum_of_pixels_counts(kind: bytes) -> None:
    """A wrong checksum of a chunk that pixels need is an error with its own words."""
    data = bytearray(file_of(colours(), "PNG"))
    at = data.index(kind)
    length = int.from_bytes(data[at - 4 : at])
    data[at + 4 + length] ^= 1

    assert f"wrong checksum (CRC) in its chunk {kind.decode()}" in fault(bytes(data))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (file_of(Image.new("LAB", (9, 9)), "TIFF"), "Lab colours"),
        (file_of(Image.new("F", (9, 9)), "TIFF"), "32 bits"),
        (file_of(Image.new("I", (9, 9)), "TIFF"), "32 bits"),
        (b"Pf\n3 3\n-1.0\n" + bytes(36), "32 bits"),
        (file_of(Image.new("RGB", (9, 9)), "TIFF", compression="lzma"), "compression 34925"),
        (png(8, 0, np.zeros((0, 0), np.uint8), width=0), "declares 0 x 0"),
        (b"P5 0 7 255 ", "declares 0 x 7"),
        (
            jpeg_with().replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
            "12 bits",
        ),
        (png_with(chunk(b"CgBI", b"\x50\0\x20\2")), "critical chunk"),
        (b"P5 3 3 70000 " + bytes(99), "maxval"),
        (file_of(Image.new("1", (10_001, 5_000)), "PNG"), "limit is 50,000,000"),
        (file_of(Image.new("P", (9, 9)), "BMP").replace(BMP_RAW, BMP_RUNS, 1), "run-length BMPs"),
        (b"P4 100000 100000 ", "limit is 50,000,000"),
    ],
)
def test_every_fault_has_its_own_words(data: bytes, words: str) -> None:
    """What isn't read is named with its limit."""
    assert words in fault(data)


def test_spend_decides_before_pixels_are_unpacked() -> None:
    """Every kind asks once, with the size its header declares, and passes the refusal on."""
    for kind, data in whole_files().items():
        asked = []

        def refuse(width: int, height: int, asked: list[tuple[int, int]] = asked) -> None:
            asked.append((width, height))
            raise PayloadTooLarge("enough")

        with pytest.raises(PayloadTooLarge, match="enough"):
            open_picture(data, refuse, ANY)
        assert asked == [(3, 2) if kind == "plain PPM" else (WIDTH, HEIGHT)]


def test_heic_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pillow-heif isn't installed, a HEIC is refused with the command that installs it."""
    load: Callable[..., object] = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name == "pillow_heif":
            raise ImportError(name=name)
        return load(name, *rest, **more)

    data = file_of(colours(), "HEIF")
    monkeypatch.setattr(builtins, "__import__", without)

    assert "pip install 'pinhole-autoencoder[heic]'" in fault(data)


def repeated_scans(times: int, width: int = 64, height: int = 64) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = file_of(Image.new("L", (width, height), 90), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xc4") if data.rindex(b"\xff\xc4") > 300 else data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * times + data[-2:]


def test_scans_are_counted_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated scans are refused by their number and by number times pixels, unread."""
    ordinary = file_of(colours(), "JPEG", progressive=True)
    assert ordinary.count(b"\xff\xda") >= 10
    read(ordinary)
    many, hidden = repeated_scans(3000), jpeg_hiding(repeated_scans(3000))
    large = repeated_scans(30, 7000, 7000)
    monkeypatch.setattr(Image, "open", lambda *a, **k: pytest.fail("was decoded"))

    assert "scans; the limit is 100" in fault(many)
    assert "scans; the limit is 100" in fault(hidden)
    assert "the limit is 1,000,000,000 in all scans" in fault(large)


def jpeg_hiding(data: bytes) -> bytes:
    """A JPEG with a comment between its scans that holds the marker of the end."""
    at = data.rindex(b"\xff\xda", 0, len(data) // 2)
    return data[:at] + b"\xff\xfe\0\x06\xff\xd9\xff\xd9" + data[at:]


def test_scans_in_a_tiff_are_counted() -> None:
    """A JPEG strip in a TIFF can't repeat its scans either."""
    strip = repeated_scans(500, WIDTH, HEIGHT)

    assert "JPEG scans" in fault(tiff("<", strip, t259=7))


@pytest.mark.parametrize(
    "data",
    [
        png_with(*[chunk(b"tEXt", b"")] * 70_000),
        jpeg_with(*[(0xDD, b"\0\0")] * 70_000),
        webp_with(*[(b"XXXX", b"")] * 70_000),
        b"GIF89a\x01\0\x01\0\0\0\0" + b"!\xfe\x01x\0" * 70_000,
        b"GIF89a\x01\0\x01\0\0\0\0!\xfe" + b"\x01x" * 70_000,
        tiff("<", bytes(WIDTH), t257=70_000, t278=1),
    ],
)
def test_parts_are_counted(data: bytes) -> None:
    """Chunks, segments and strips that cost time without adding pixels are refused by number."""
    message = fault(data)

    assert "65,536" in message or "truncated" in message


def test_animated_webp_has_one_frame_unpacked() -> None:
    """A WebP of many frames reaches Pillow as a still picture of its first."""
    frames = [Image.new("RGB", (WIDTH, HEIGHT), (n, 0, 0)) for n in range(20)]
    data = file_of(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)

    still = parts.bare_webp(data).data

    assert data.count(b"ANMF") > 1
    assert b"ANMF" not in still


@pytest.mark.parametrize("size", [(4000, 30), (30, 4000), (1025, 700), (4000, 3000)])
@pytest.mark.parametrize("at_least", [1, 512, 1024, ANY])
def test_large_jpeg_is_reduced_but_not_too_far(size: tuple[int, int], at_least: int) -> None:
    """A JPEG comes back at 1, 1/2, 1/4 or 1/8 of its size, its longer side at least as asked."""
    data = file_of(Image.new("L", size, 99), "JPEG")

    picture = read(data, at_least)

    factor = next(n for n in (8, 4, 2, 1) if n == 1 or max(size) // n >= at_least)
    assert picture.size == tuple(-(-side // n) for side, n in zip(size, (factor,) * 2, strict=True))
    assert picture.getpixel((0, 0)) == 99


def test_suffixes_are_those_of_the_formats() -> None:
    """Every suffix that Pillow knows for a format that is read is in the list."""
    Image.init()
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}

    assert known - set(SUFFIXES) <= {".apng", ".avifs", ".pfm", ".heics", ".heifs", ".hif"}
    assert set(SUFFIXES) - known <= {".heic", ".heif"}


@pytest.mark.parametrize("kind", list(whole_files()))
def test_damage_of_any_sort_is_an_invalid_image(kind: str) -> None:
    """Files cut anywhere, and files with bytes changed, are read or refused, and soon."""
    whole = whole_files()[kind]
    for data in damaged(whole, seed=len(whole), changed=400, cut=100):
        start = time.process_time()
        try:
            picture = read(data)
        except (InvalidImage, PayloadTooLarge):
            picture = None
        assert picture is None or picture.mode in ("L", "RGB")
        assert time.process_time() - start < 1


def damaged(whole: bytes, seed: int, changed: int, cut: int) -> list[bytes]:
    """Some copies with a few bytes changed, more of them near the start, and some cut short."""
    dice = random.Random(seed)  # noqa: S311 - repeatable, not secret
    copies = [whole[: len(whole) * n // cut] for n in range(cut)]
    for _ in range(changed):
        copy = bytearray(whole)
        for _ in range(dice.choice((1, 1, 2, 5))):
            end = dice.choice((64, 400, len(copy)))
            copy[dice.randrange(min(end, len(copy)))] = dice.choice(
                (0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256))
            )
        copies.append(bytes(copy))
    return copies
