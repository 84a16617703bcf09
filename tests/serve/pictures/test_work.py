"""Work and memory are bounded by a file's bytes and its declared pixels, before they are spent."""

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from serve.bundle.errors import PayloadTooLarge
from serve.bundle.pictures import tiff as tiff_module
from serve.bundle.pictures.reading import open_picture

from .files import (
    ANY,
    HEIGHT,
    WIDTH,
    box,
    chunk,
    colours,
    declares,
    fault,
    file_of,
    jpeg_with,
    png,
    png_with,
    read,
    repeated_scans,
    riff,
    tiff,
    triples,
    whole_files,
)

SIDE = 7_000  # pixels; its square is just under the limit for a file
LARGE = {"t256": SIDE, "t257": SIDE, "t278": SIDE}


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where Pillow begins to decode."""
    for reader in (ImageFile.ImageFile, AvifImageFile, TiffImageFile, WebPImageFile):
        monkeypatch.setattr(reader, "load", lambda _: pytest.fail("was decoded"))


def test_spend_decides_before_pixels_are_unpacked(no_decoding: None) -> None:
    """Every kind asks once, with the size its header declares, and passes the refusal on."""
    for kind, data in whole_files().items():
        asked = []

        def refuse(width: int, height: int, asked: list[tuple[int, int]] = asked) -> None:
            asked.append((width, height))
            raise PayloadTooLarge("enough")

        with pytest.raises(PayloadTooLarge, match="enough"):
            open_picture(data, refuse, ANY)
        assert asked == [(3, 2) if kind == "plain PPM" else (WIDTH, HEIGHT)]


def large_jpeg(**options: object) -> bytes:
    """The headers of a JPEG of 49 megapixels, up to its first scan, and its end."""
    data = file_of(Image.new("L", (8, 8)), "JPEG", **options)
    frame = data.index(b"\xff\xc2" if options else b"\xff\xc0") + 5
    scan = data.index(b"\xff\xda")
    start = scan + 2 + int.from_bytes(data[scan + 2 : scan + 4])
    return data[:frame] + struct.pack(">HH", SIDE, SIDE) + data[frame + 4 : start] + b"\xff\xd9"


def large_webp() -> bytes:
    """A lossless WebP of 49 megapixels of one colour: its five codes have one symbol each."""
    bits = 0x2F | (SIDE - 1) << 8 | (SIDE - 1) << 22 | 0b0001_0001_0001_0001_0001 << 43
    return riff(b"RIFF", b"WEBP" + riff(b"VP8L", bits.to_bytes(10, "little")))


def large_canvas() -> bytes:
    """An animated WebP of 49 megapixels whose first frame has one pixel."""
    frame = file_of(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]
    anmf = riff(b"ANMF", triples(0, 0, 0, 0, 100) + b"\0" + frame)
    canvas = riff(b"VP8X", b"\x12\0\0\0" + triples(SIDE - 1, SIDE - 1))
    return riff(b"RIFF", b"WEBP" + canvas + riff(b"ANIM", bytes(6)) + anmf)


TOO_SHORT = {
    "PNG": png(16, 6, np.zeros((SIDE, 0), np.uint8), width=SIDE),
    "PNG without pixels": png_with().replace(b"IDAT", b"iDAT"),
    "JPEG": large_jpeg(),
    "progressive JPEG": large_jpeg(progressive=True),
    "WebP": large_webp(),
    "WebP canvas": large_canvas(),
    "GIF screen": b"GIF89a" + struct.pack("<HH", SIDE, SIDE) + b"\0\0\0,"
    + struct.pack("<4H", 0, 0, 1, 1) + b"\0\2\2D\1\0;",
    "BMP": b"BM" + struct.pack("<IIIIiihhIIiiII", 54, 0, 54, 40, SIDE, SIDE, 1, 24, *[0] * 6),
    "PPM": b"P6 7000 7000 255\n",
    "plain PPM": b"P3 7000 7000 255\n1 1 1",
    "AVIF": declares(whole_files()["AVIF"], SIDE, SIDE),
    "HEIC": declares(file_of(Image.new("L", (64, 64)), "HEIF"), SIDE, SIDE),
    "TIFF": tiff("<", bytes(8), **LARGE, t258=(8,) * 3, t262=2, t277=3),
    "deep TIFF": tiff("<", zlib.compress(bytes(99)), **LARGE, t258=12, t259=8),
    "Deflate TIFF": tiff("<", zlib.compress(bytes(99)), **LARGE, t258=(16,) * 4, t259=8, t262=2,
                         t277=4),
    "LZW TIFF": tiff("<", b"\x80\0\0", **LARGE, t259=5),
    "PackBits TIFF": tiff("<", b"\x81\0", **LARGE, t259=32773),
    "JPEG TIFF": tiff("<", large_jpeg(), **LARGE, t259=7),
    "fax TIFF": tiff("<", bytes(8), **LARGE, t258=1, t259=4),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(TOO_SHORT))
def test_too_few_bytes_for_the_pixels(kind: str, no_decoding: None) -> None:
    """A file that declares far more pixels than its bytes can hold is truncated, unread."""
    data = TOO_SHORT[kind]

    assert len(data) < 1_000
    assert "is truncated" in fault(data)


@pytest.mark.parametrize(
    ("format", "mode", "options"),
    [
        ("PNG", "1", {}),
        ("JPEG", "L", {"quality": 1, "progressive": True}),
        ("GIF", "P", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGB", {"quality": 0}),
        ("AVIF", "L", {"quality": 1, "speed": 10}),
        ("HEIF", "RGB", {}),
        *[("TIFF", "1", {"compression": name}) for name in ("group4", "packbits", "zstd")],
        *[("TIFF", "1", {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate")],
        ("TIFF", "L", {"compression": "jpeg", "quality": 1}),
    ],
)
def test_blank_page_of_12_megapixels_is_read(
    format: str, mode: str, options: dict[str, object]
) -> None:
    """Blank pages, the densest files there are, are within what a file's bytes can hold."""
    page = Image.new(mode, (4000, 3000), "white")

    assert np.asarray(read(file_of(page, format, **options), at_least=1)).min() > 220


def test_scans_are_counted_before_they_are_decoded(no_decoding: None) -> None:
    """Repeated scans are refused by their number and by number times pixels, unread."""
    many = repeated_scans(3000, 64, 64)
    at = many.rindex(b"\xff\xda", 0, len(many) // 2)
    hidden = many[:at] + b"\xff\xfe\0\x06\xff\xd9\xff\xd9" + many[at:]  # a comment with an end

    assert "scans; the limit is 100" in fault(many)
    assert "scans; the limit is 100" in fault(hidden)
    assert "the limit is 1,000,000,000 in all scans" in fault(repeated_scans(30, SIDE, SIDE))
    assert "scans; the limit is 100" in fault(tiff("<", repeated_scans(500, WIDTH, HEIGHT), t259=7))


def test_ordinary_scans_are_read() -> None:
    """A progressive JPEG of ten scans is within the limits."""
    data = file_of(colours(), "JPEG", progressive=True)

    assert data.count(b"\xff\xda") >= 10
    assert read(data).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png_with(*[chunk(b"tEXt", b"")] * 70_000), "over 65,536 chunks"),
        (jpeg_with(*[(0xDD, b"\0\0")] * 70_000), "over 65,536 segments"),
        (b"GIF89a\x01\0\x01\0\0\0\0" + b"!\xfe\x01x\0" * 70_000, "truncated"),
        (
            tiff("<", bytes(WIDTH), t257=70_000, t278=1, t273=(8,) * 70_000, t279=(1,) * 70_000),
            "over 65,536 strips",
        ),
    ],
    ids=["PNG", "JPEG", "GIF", "TIFF"],
)
def test_parts_are_counted(data: bytes, words: str, no_decoding: None) -> None:
    """Chunks, segments and strips that cost time without adding pixels are refused by number."""
    assert words in fault(data)


def test_strips_may_not_be_read_again_and_again(no_decoding: None) -> None:
    """Strips that all lie in one place repeat the work of their scans."""
    strip = repeated_scans(80, 256, 256)
    data = tiff("<", strip, t256=256, t257=25_600, t278=256, t259=7, t273=(8,) * 100,
                t279=(len(strip),) * 100)  # fmt: skip

    assert "overlap" in fault(data)


def test_tiles_are_no_larger_than_the_picture_needs(no_decoding: None) -> None:
    """A small picture can't have a tile of 64 megapixels unpacked."""
    data = tiff("<", bytes(9), t322=8000, t323=8000, t324=8, t325=9, t259=8)
    no_strips = data.replace(struct.pack("<HHI", 273, 4, 1), struct.pack("<HHI", 50000, 4, 1))

    assert "tiles are far larger" in fault(no_strips)


def test_avif_codes_no_more_than_it_declares(no_decoding: None) -> None:
    """Libavif decodes a frame of any size and scales it; the size of the AV1 stream counts too."""
    dark, light = (Image.new("L", (500, 500), shade) for shade in (0, 255))
    still = file_of(dark, "AVIF", speed=10)
    film = file_of(dark, "AVIF", speed=10, save_all=True, append_images=[light])

    assert "far more pixels coded than it declares" in fault(declares(still, 64, 64))
    assert "far more pixels coded than it declares" in fault(declares(film, 64, 64))


@pytest.mark.parametrize(
    ("before", "times", "words"),
    [
        (b"", 20, "far more pixels coded than it declares"),
        (b"\x12\0" * 70_000, 1, "over 65,536 OBUs"),  # delimiters without content
    ],
)
def test_avif_has_few_frames(before: bytes, times: int, words: str, no_decoding: None) -> None:
    """Frames behind the first frame of an item would be decoded, too, and delimiters read."""
    still = file_of(Image.new("L", (500, 500)), "AVIF", speed=10)
    at = still.index(b"mdat")
    size = int.from_bytes(still[at - 4 : at]) - 8
    content = before + still[at + 4 : at + 4 + size] * times
    place = still.index(struct.pack(">II", at + 4, size), still.index(b"iloc"))

    data = (still[: place + 4] + struct.pack(">I", len(content)) + still[place + 8 : at - 4]
            + struct.pack(">I", 8 + len(content)) + b"mdat" + content)  # fmt: skip

    assert words in fault(data)


def test_the_first_list_of_items_counts(no_decoding: None) -> None:
    """Another list of items behind the one that libavif reads hides nothing."""
    still = declares(file_of(Image.new("L", (500, 500)), "AVIF", speed=10), 64, 64)
    nothing = box(b"meta", bytes(4) + box(b"iloc", bytes(8)))

    assert "far more pixels coded than it declares" in fault(still + nothing)


def test_items_have_few_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of no bytes, which libavif would keep 16 bytes each for, are counted before it does."""
    monkeypatch.setattr(AvifImageFile, "_open", lambda _: pytest.fail("was opened"))
    beyond = struct.pack(">HHQH", 1, 0, 1 << 40, 65_535)  # number, file, base, and how many parts
    iloc = box(b"iloc", bytes(4) + b"\0\x80" + struct.pack(">H", 2) + 2 * beyond)
    data = box(b"ftyp", b"avif" + bytes(4) + b"avif") + box(b"meta", bytes(4) + iloc)

    assert "over 65,536 parts" in fault(data)


def test_a_tag_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TIFF may name one tag 65,535 times, with 196,608 values each time."""
    read_tags = []
    values_of = tiff_module.values_of

    def counted(data: bytes, tag: int, *place: Any) -> tuple[int, ...]:
        read_tags.append(tag)
        return values_of(data, tag, *place)

    monkeypatch.setattr(tiff_module, "values_of", counted)
    palette = bytes(2 * 3 * 65_536)
    entries = struct.pack("<HHII", 320, 3, 3 * 65_536, 8) * 50_000
    head = b"II\x2a\0" + struct.pack("<I", 8 + len(palette))

    assert "truncated" in fault(head + palette + struct.pack("<H", 50_000) + entries + bytes(4))
    assert read_tags == [320]


def test_one_frame_of_an_animation_is_decoded() -> None:
    """Damage in the second frame isn't noticed, since nobody decodes it."""
    frames = [Image.fromarray(np.random.default_rng(n).integers(0, 256, (64, 64), np.uint8))
              for n in (1, 2)]  # fmt: skip
    for format in ("WEBP", "GIF", "PNG"):
        data = bytearray(file_of(frames[0], format, save_all=True, append_images=frames[1:]))
        data[-2000:-1000] = bytes(1000)

        assert read(bytes(data)).size == (64, 64)


@pytest.mark.parametrize("size", [(4000, 30), (30, 4000), (1025, 700), (4000, 3000)])
@pytest.mark.parametrize("at_least", [1, 512, 1024, ANY])
def test_large_jpeg_is_reduced_but_not_too_far(size: tuple[int, int], at_least: int) -> None:
    """A JPEG comes back at 1, 1/2, 1/4 or 1/8 of its size, its longer side at least as asked."""
    data = file_of(Image.new("L", size, 99), "JPEG")

    picture = read(data, at_least)

    factor = next(n for n in (8, 4, 2, 1) if n == 1 or max(size) // n >= at_least)
    assert picture.size == tuple(-(-side // factor) for side in size)
    assert picture.getpixel((0, 0)) == 99
