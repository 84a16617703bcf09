"""The contract's limits, in one place. Each is enforced before the memory is spent."""

from serve.bundle.errors import TooManyImages

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
