"""The size that a file declares is allowed, and is such as its bytes can hold, or it isn't decoded.

Decoders take memory for all declared pixels at once: 750 MB for a WebP of 30 bytes.
"""

from collections.abc import Callable

from serve.bundle.errors import InvalidImage

Spend = Callable[[int, int], None]  # takes a width and a height; PixelBudget.spend

# The most pixels that a byte holds. In a JPEG each block of 8 x 8 pixels has a code of at least one
# bit, in a GIF a code of 12 bits stands for 4,096 pixels at most. Elsewhere blank pages are the
# densest files: 49 megapixels take 1,183 bytes as AVIF and 1,934 as WebP.
DENSEST_JPEG, DENSEST_GIF, DENSEST = 512, 2_731, 65_536
# The most segments, chunks, blocks, strips or tiles of a file: each costs a few microseconds,
# however empty it is. A PNG of 16 MiB whose writer made chunks of 1 KiB has 16,384.
MAX_PARTS = 65_536
# The most scans of a JPEG. Progressive files have about 10; libtiff's limit is 100 too.
MAX_SCANS = 100
# The most pixels that all scans of a JPEG go over. A scan of 98 bytes can go over every pixel
# again, at 0.9 s for each 1,000 megapixels. 50 megapixels in 12 scans are 600.
MAX_SCANNED_PIXELS = 1_000_000_000


def declare(kind: str, size: tuple[int, int], holds: int, spend: Spend) -> None:
    """Have a declared size allowed.

    Args:
        kind: of the file.
        size: width and height.
        holds: the most pixels that the file's bytes can hold.
        spend: of the request.

    Raises:
        InvalidImage: a side is 0, ``spend`` refuses the size, or the file is too short for it.
    """
    width, height = size
    if width < 1 or height < 1:
        raise InvalidImage(f"the {kind} has no pixels: it declares {width} x {height}")
    spend(width, height)
    if width * height > holds:
        raise truncated(kind)


def check_scans(kind: str, scans: int, pictures: int, pixels: int) -> None:
    """Raise InvalidImage if the JPEG scans of some pictures, each of some pixels, are too many."""
    if scans > MAX_SCANS * pictures:
        raise InvalidImage(f"the {kind} has {scans:,} scans; the limit is {MAX_SCANS * pictures:,}")
    if scans * pixels > MAX_SCANNED_PIXELS:
        raise InvalidImage(
            f"the {kind} goes over {pixels:,} pixels in {scans:,} scans; the limit is "
            f"{MAX_SCANNED_PIXELS:,} in all scans together"
        )


def truncated(kind: str) -> InvalidImage:
    """The error of a file whose end is missing."""
    return InvalidImage(f"the {kind} is truncated: it ends before its last row of pixels")
