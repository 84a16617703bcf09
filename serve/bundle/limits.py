"""The contract's limits, in one place. Each is enforced before the memory is spent."""

import math

from serve.bundle.errors import PayloadTooLarge, TooManyImages

MAX_BODY_BYTES = 16 << 20
MAX_REPLY_BYTES = 32 << 20
MAX_IMAGES = 4_096  # images, or embeddings, of one request
MAX_IMAGE_PIXELS = 50_000_000  # of one file, as its header declares them
MAX_REQUEST_PIXELS = 200_000_000  # of all files of one request
MAX_EMBEDDING = 1e6  # magnitude of one number; far beyond any model, far below float32's overflow


def check_count(count: int) -> None:
    """Raise TooManyImages if one request may not carry so many."""
    if count > MAX_IMAGES:
        raise TooManyImages(f"the request has {count:,} entries; the limit is {MAX_IMAGES:,}")


def check_size(count: int, shape: tuple[int, ...]) -> None:
    """Raise if one request may not carry, or ask for, so many images of the model's shape.

    Images may take as many bytes as a body of pixels may have, in whatever form they come: a file
    of 67 bytes becomes an image like any other. A single image is always allowed.

    Args:
        count: images that are to be read or drawn.
        shape: (C, H, W) of each.

    Raises:
        TooManyImages: over MAX_IMAGES.
        PayloadTooLarge: over MAX_BODY_BYTES numbers.
    """
    check_count(count)
    most = max(1, MAX_BODY_BYTES // math.prod(shape))
    if count > most:
        raise PayloadTooLarge(
            f"{count:,} images of {' x '.join(map(str, shape))} are {count * math.prod(shape):,} "
            f"numbers; the limit is {MAX_BODY_BYTES:,}: send at most {most:,}"
        )
