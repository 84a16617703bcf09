"""What a request will cost, estimated from its size and its headers before any of it is spent."""

import struct

from serve.bundle.manifest import Manifest
from serve.wire.media import JSON, MULTIPART, NPY
from serve.wire.requests import Message

# A request of at most so many pixels is light: it needn't wait for heavy requests. They are some
# 300 images of 28 x 28, or a picture of 512 x 512, and take about ten milliseconds.
LIGHT_PIXELS = 1 << 18
PIXELS_A_BYTE = 8  # of a compressed file whose header isn't looked at
BASE64 = 3 / 4  # bytes of a file for each byte of its base64
PNG_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
PNG_SIZE = struct.Struct(">II")  # width and height, after PNG_HEAD


def weigh(message: Message, takes: str, manifest: Manifest) -> int:
    """The pixels that a request will have the service read or draw.

    Args:
        message: as it arrived; nothing of its body has been read.
        takes: name of the endpoint's input tensor.
        manifest: of the bundle that is served.
    """
    return max(1, estimate(message, takes, manifest))


def estimate(message: Message, takes: str, manifest: Manifest) -> int:
    """See weigh; 0 of an empty body."""
    if takes == "embeddings":
        rows = message.size // (4 * manifest.embedding_width)  # as an array; JSON needs more bytes
        return max(1, rows) * manifest.image.channels * manifest.image.height * manifest.image.width
    if message.content_type == NPY:
        return message.size
    if message.oip or message.content_type == JSON:
        return round(message.size * PIXELS_A_BYTE * BASE64)
    if message.parts:
        return sum(map(declared_pixels, message.parts))
    if message.content_type == MULTIPART:
        return message.size * PIXELS_A_BYTE
    return declared_pixels(message.body)


def declared_pixels(file: bytes) -> int:
    """The pixels that a PNG declares, or an estimate for a file of another kind."""
    if not file.startswith(PNG_HEAD) or len(file) < len(PNG_HEAD) + PNG_SIZE.size:
        return len(file) * PIXELS_A_BYTE
    width, height = PNG_SIZE.unpack_from(file, len(PNG_HEAD))
    return max(len(file), int(width * height))
