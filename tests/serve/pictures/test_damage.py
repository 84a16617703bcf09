"""What can't be read is refused in words of its own, whatever the damage."""

import builtins
import random
import struct
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from serve.bundle.errors import InvalidImage, PayloadTooLarge
from serve.bundle.pictures.kinds import FORMATS, SUFFIXES

from .files import (
    chunk,
    colours,
    fault,
    file_of,
    jpeg_with,
    png_with,
    read,
    tiff,
    whole_files,
)

KINDS = list(whole_files())
# Width, height, planes, bits and compression of a BMP: as it is, and run-length coded.
BMP_RAW = struct.pack("<iihhi", 9, 9, 1, 8, 0)
BMP_RUNS = struct.pack("<iihhi", 2001, 1000, 1, 8, 1)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><title>secret</title>", "HTML page"),
        (b"\n <HTML>secret", "HTML page"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><secret/>", "XML"),
        (b'{"secret": 1}', "JSON"),
        (b"secret text", "text"),
        ("secrét".encode(), "text"),
        ("<html>secret".encode("utf-16"), "UTF-16"),
        (b"%PDF-1.7 secret", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"PK\x03\x04secret", "zip"),
        (b"\x1f\x8b\x08secret", "compressed"),
        (b"<svg xmlns=secret>", "SVG"),
        (b"iVBORw0KGgoAAAANSUhEUg", "base64"),
        (b"\0\0\0\x18ftypisom\0\0\0\0mp42", "video"),
        (np.random.default_rng(0).bytes(4096), "encrypted or compressed"),
        (b"Salted__secret\x9f", "encrypted"),
        (b"Pf\n3 3\n-1.0\n" + bytes(36), "32 bits"),
        (bytes(100), "zeros"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, words: str) -> None:
    """The message says what the bytes look like, and never shows them."""
    message = fault(data)

    assert words in message
    assert "secr" not in message
    assert not data or ("PNG, JPEG" in message and f"{len(data):,} bytes" in message)


@pytest.mark.parametrize("kind", KINDS)
def test_truncation_is_named(kind: str) -> None:
    """The last bytes are missing: the message says that, and not which formats are read."""
    data = whole_files()[kind]

    assert "ends before its last row" in fault(data[: len(data) * 3 // 4])


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT"])
def test_checksum_of_pixels_counts(kind: bytes) -> None:
    """A wrong checksum of a chunk that pixels need is an error with its own words."""
    data = bytearray(file_of(colours(), "PNG"))
    at = data.index(kind)
    data[at + 4 + int.from_bytes(data[at - 4 : at])] ^= 1

    assert f"wrong checksum (CRC) in its chunk {kind.decode()}" in fault(bytes(data))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"P5 0 7 255 ", "declares 0 x 7"),
        (b"P5 3 3 70000 " + bytes(99), "maxval"),
        (b"P2 3 3 255 one two", "not a number"),
        (b"P4 100000 100000 ", "limit is 50,000,000"),
        (file_of(Image.new("1", (10_001, 5_000)), "PNG"), "limit is 50,000,000"),
        (b"GIF89a\1\0\1\0\0\0\0,\0\0\0\0\0\0\1\0\0", "first frame has 0 x 1"),
        (jpeg_with().replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), "12 bits"),
        (png_with(chunk(b"CgBI", b"\x50\0\x20\2")), "critical chunk"),
        (file_of(Image.new("P", (9, 9)), "BMP").replace(BMP_RAW, BMP_RUNS, 1), "run-length BMPs"),
        (b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff\x3f\0" * 2, "limit of 50,000,000"),
    ],
)
def test_every_fault_has_its_own_words(data: bytes, words: str) -> None:
    """What isn't read is named with its limit."""
    assert words in fault(data)


def test_heic_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pillow-heif isn't installed, a HEIC is refused with the command that installs it."""
    load: Callable[..., object] = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name == "pillow_heif":
            raise ImportError(name=name)
        return load(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)

    assert "pip install 'pinhole-autoencoder[heic]'" in fault(whole_files()["HEIF"])


def test_suffixes_are_those_of_the_formats() -> None:
    """Every suffix that Pillow knows for a format that is read is in the list."""
    Image.init()
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}

    assert known - set(SUFFIXES) <= {".apng", ".avifs", ".pfm", ".heics", ".heifs", ".hif"}
    assert set(SUFFIXES) - known <= {".heic", ".heif"}


@pytest.mark.parametrize("kind", KINDS)
def test_damage_of_any_sort_is_an_invalid_image(kind: str, capfd: pytest.CaptureFixture) -> None:
    """Files cut anywhere, and files with bytes changed, are read or refused, soon and silently."""
    whole = whole_files()[kind]
    for data in damaged(whole, seed=len(whole), changed=400, cut=100):
        start = time.process_time()
        try:
            picture = read(data)
        except (InvalidImage, PayloadTooLarge):
            picture = None
        assert picture is None or picture.mode in ("L", "RGB")
        assert time.process_time() - start < 1

    assert capfd.readouterr() == ("", "")


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


def test_libtiff_is_silent(capfd: pytest.CaptureFixture) -> None:
    """A damaged fax, for whose every row libtiff has an error, leaves nothing in the log."""
    rows = np.random.default_rng(0).bytes(2_000)

    read(tiff("<", rows, t256=64, t257=1_000, t278=1_000, t258=1, t259=3))

    assert capfd.readouterr() == ("", "")
