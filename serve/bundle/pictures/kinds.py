"""Which kind of file some bytes are, by their first bytes; a file's name isn't asked."""

import codecs
import re

from serve.bundle.errors import InvalidImage

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif"),
)
# Pillow's names. No file of these makes Pillow start another program, as an EPS does.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF")

SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II\x2a\0", "TIFF"),
    (b"MM\0\x2a", "TIFF"),
    (b"II\x2b\0", "TIFF"),  # BigTIFF
    (b"MM\0\x2b", "TIFF"),
)
PNM_START = re.compile(rb"P[1-6][\s#]|Pf[\s#]")
# ISO 14496-12: a file begins with a box "ftyp" that lists brands. MIAF (ISO 23000-22) has those of
# AVIF; HEIF (ISO 23008-12, annex B) has those of HEIC. mif1 and msf1 may be of either kind.
AVIF_BRANDS = {b"avif", b"avis"}
HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"}
EITHER_BRANDS = {b"mif1", b"msf1"}

# What people send by mistake, by its first bytes; of two that fit, the upper is named.
MISTAKES = (
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript file"),
    (b"PK\x03\x04", "a zip archive, or an office document"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ", "an xz file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"Salted__", "a file encrypted by OpenSSL"),
    (b"age-encryption.org", "a file encrypted by age"),
    (b"-----BEGIN PGP", "a file encrypted by PGP"),
    (b"\x93NUMPY", "a NumPy array; send it as application/x-npy"),
    (b"PAR1", "a Parquet file"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 file"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 file"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL file"),
    (b"\xff\x0a", "a JPEG XL file"),
    (b"\0\0\x01\0", "a Windows icon"),
    (b"8BPS", "a Photoshop file"),
    (b"v/1\x01", "an OpenEXR file"),
    (b"SIMPLE  =", "a FITS file"),
    (b"P7", "a PAM file"),
    (b"PF", "a PFM file, whose samples have 32 bits"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"SQLite format 3", "an SQLite database"),
    (b"ID3", "a sound file"),
    (b"RIFF", "a RIFF file of another kind, such as WAV or AVI"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"iVBORw0KGgo", "a base64 text of a PNG; send the bytes themselves"),
    (b"/9j/", "a base64 text of a JPEG; send the bytes themselves"),
    (b"data:image/", "a data URL; send the bytes themselves"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself"),
    (b"--", "a multipart form; send the bytes themselves"),
)
MARKUP = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<head", "an HTML page"),
    (b"<body", "an HTML page"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML document"),
    (b"<", "an HTML page or an XML document"),
    (b"{", "JSON"),
    (b"[", "JSON"),
)
TEXT = re.compile(rb"[\t\n\f\r\x20-\x7e\x80-\xff]+")


def kind_of(data: bytes) -> str:
    """One of FORMATS.

    Raises:
        InvalidImage: the bytes are of no kind that is read; says what they look like.
    """
    if not data:
        raise InvalidImage("the image is empty (0 bytes)")
    for signature, kind in SIGNATURES:
        if data.startswith(signature):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if PNM_START.match(data):
        return "PPM"
    if data[4:8] == b"ftyp" and (branded := kind_by_brand(data)):
        return branded
    raise InvalidImage(
        f"{len(data):,} bytes can't be read as an image: they look like {likeness(data)}; "
        f"send one of {', '.join(FORMATS)}"
    )


def kind_by_brand(data: bytes) -> str | None:
    """AVIF or HEIF, by the brands of a file of ISO boxes; None for a video or another kind."""
    end = min(int.from_bytes(data[:4]), 256)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, end, 4))]
    for brand in brands:
        if brand in AVIF_BRANDS:
            return "AVIF"
        if brand in HEIF_BRANDS:
            return "HEIF"
    return "HEIF" if EITHER_BRANDS.intersection(brands) else None


def likeness(data: bytes) -> str:
    """What bytes that are no picture look like; never any of the bytes themselves."""
    for signature, name in MISTAKES:
        if data.startswith(signature):
            return name
    if data[4:8] == b"ftyp":
        return "a video, or a picture of another kind"
    start = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text in UTF-16"
    if is_text(data[:1024]):
        return next((name for sign, name in MARKUP if start.startswith(sign)), "text")
    if not any(data[:1024]):
        return "zeros alone"
    return "encrypted or compressed data, or a format that isn't read"


def is_text(start: bytes) -> bool:
    """Whether bytes are UTF-8 without control characters; the last character may be cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return TEXT.fullmatch(start) is not None
