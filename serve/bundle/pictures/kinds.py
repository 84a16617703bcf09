"""Which kind of file some bytes are, by their first bytes; a file's name isn't asked."""

import re

from serve.bundle.errors import InvalidImage

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif"),
)
# Pillow's names. No file of these makes Pillow start another program, as an EPS does.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF")

# A file's first bytes. RIFF and ISO files have their length first, which may be anything.
SIGNATURES = (
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"RIFF.{4}WEBP", "WEBP"),
    (rb"GIF8[79]a", "GIF"),
    (rb"BM", "BMP"),
    (rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]", "TIFF"),  # 0x2b is a BigTIFF's
    (rb"P[1-6][\s#]", "PPM"),
)
# ISO 14496-12: a file begins with a box "ftyp" that lists brands. MIAF (ISO 23000-22) has those of
# AVIF; HEIF (ISO 23008-12, annex B) has those of HEIC. mif1 and msf1 may be of either kind.
BRANDS = (
    ({b"avif", b"avis"}, "AVIF"),
    ({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"}, "HEIF"),
    ({b"mif1", b"msf1"}, "HEIF"),
)
# What people send by mistake, by its first bytes.
MISTAKES = (
    (rb"%PDF", "a PDF document"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript file"),
    (rb"PK\x03\x04", "a zip archive, or an office document"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd", "a compressed file or archive"),
    (rb"Salted__|age-encryption.org|-----BEGIN PGP", "an encrypted file"),
    (rb"\x93NUMPY", "a NumPy array; send it as application/x-npy"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 file"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "a JPEG XL file"),
    (rb"\0\0\x01\0", "a Windows icon"),
    (rb"8BPS", "a Photoshop file"),
    (rb"P[Ff][\s#]", "a PFM file, whose samples have 32 bits"),
    (rb".{4}ftyp|\x1aE\xdf\xa3|RIFF", "a video, or a picture of another kind"),
    (rb"iVBORw0KGgo|/9j/", "the base64 text of an image; send the bytes themselves"),
    (rb"data:image/", "a data URL; send the bytes themselves"),
    (rb"version https://git-lfs", "a Git LFS pointer; fetch the file itself"),
    (rb"--", "a multipart form; send the bytes themselves"),
    (rb"\xff\xfe|\xfe\xff", "text in UTF-16"),
)
TEXTS = (
    (rb"<svg", "an SVG drawing"),
    (rb"<\?xml", "an XML document"),
    (rb"<", "an HTML page"),
    (rb"[{\[]", "JSON"),
)
TEXT = re.compile(rb"[\t\n\f\r\x20-\x7e\x80-\xff]+")  # ASCII, and UTF-8 beyond it


def kind_of(data: bytes) -> str:
    """One of FORMATS.

    Raises:
        InvalidImage: the bytes are of no kind that is read; says what they look like.
    """
    if not data:
        raise InvalidImage("the image is empty (0 bytes)")
    kind = named(SIGNATURES, data) or kind_by_brand(data)
    if kind is None:
        raise InvalidImage(
            f"{len(data):,} bytes can't be read as an image: they look like {likeness(data)}; "
            f"send one of {', '.join(FORMATS)}"
        )
    return kind


def named(names: tuple[tuple[bytes, str], ...], start: bytes) -> str | None:
    """The first name whose pattern the bytes begin with."""
    return next((name for sign, name in names if re.match(sign, start, re.DOTALL)), None)


def kind_by_brand(data: bytes) -> str | None:
    """AVIF or HEIF, by the brands of a file of ISO boxes; None for a video or another kind."""
    end = min(int.from_bytes(data[:4]), 256) if data[4:8] == b"ftyp" else 0
    listed = [data[8:12], *(data[at : at + 4] for at in range(16, end, 4))]
    return next((kind for brands, kind in BRANDS if end and brands.intersection(listed)), None)


def likeness(data: bytes) -> str:
    """What bytes that are no picture look like; never any of the bytes themselves."""
    start = data[:1024]
    if name := named(MISTAKES, start):
        return name
    if TEXT.fullmatch(start):
        return named(TEXTS, start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()) or "text"
    if not any(start):
        return "zeros alone"
    return "encrypted or compressed data, or a format that isn't read"
