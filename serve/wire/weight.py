"""What a request will cost, estimated from its size and its headers before any of it is spent."""

import json
import math
import struct
from collections.abc import Iterable
from itertools import chain, islice

from serve.bundle.errors import InvalidImage
from serve.bundle.limits import MAX_BODY_BYTES, MAX_IMAGE_PIXELS, MAX_IMAGES, MAX_REQUEST_PIXELS
from serve.bundle.manifest import Manifest
from serve.bundle.pictures.kinds import SIGNATURES, kind_by_brand, named
from serve.bundle.pictures.parts import START_OF_FRAME, jpeg_segments
from serve.bundle.pictures.sizes import DENSEST, DENSEST_JPEG
from serve.errors import InvalidRequest
from serve.wire.json_bodies import read_text
from serve.wire.media import MULTIPART, NPY
from serve.wire.message import Message, is_file_type
from serve.wire.oip import HEADER_LENGTH, LENGTH_FORM, split_files

# A request of at most so many pixels is light: it needn't wait for heavy requests. They are some
# 300 images of 28 x 28, or a picture of 512 x 512, and take about ten milliseconds.
LIGHT_PIXELS = 1 << 18
LEAST_PIXELS = 28 * 28  # any request, were it an empty one, costs as much as these
PIXELS_A_BYTE = 8  # of files whose headers aren't looked at
BASE64 = 3 / 4  # bytes of a file for each byte of its base64
SHORTEST_TEXT = 16  # of a file in base64; what is shorter stands between two files
PNG_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
PNG_SIZE = struct.Struct(">II")  # width and height, after PNG_HEAD
JPEG_SIZE = struct.Struct(">HH")  # height and width, 5 bytes after the start of a frame's segment
# How far the size of a JPEG is looked for: it stands behind at most a few profiles and previews.
JPEG_HEAD_BYTES, JPEG_HEAD_PARTS = 1 << 20, 64


def weigh(message: Message, takes: str, manifest: Manifest) -> int:
    """The pixels that a request will have the service read or draw; at least LEAST_PIXELS.

    Args:
        message: as it arrived; nothing of its body has been read.
        takes: name of the endpoint's input tensor.
        manifest: of the bundle that is served.
    """
    pixels = math.prod(manifest.image.shape)
    if takes == "embeddings":
        found = pictures(count_vectors(message, manifest.embedding_width), pixels)
    else:
        found = weigh_images(message, pixels)
    return max(LEAST_PIXELS, found)


def pictures(count: int, pixels: int) -> int:
    """The pixels of some pictures of the model's size; a request for more is refused unread."""
    return min(max(1, count) * pixels, MAX_BODY_BYTES)


def count_vectors(message: Message, width: int) -> int:
    """At least as many as the embeddings of ``width`` numbers that a request to decode holds."""
    if message.oip:
        end = end_of_json(message)
        raw_bytes = len(message.body) - end
        return message.body.count(b",", 0, end) // width + raw_bytes // (4 * width) + 1
    if message.content_type == NPY:
        return message.size // (4 * width)
    return message.body.count(b"[") - 1  # one more opens the list


def weigh_images(message: Message, pixels: int) -> int:
    """The pixels of a request's images, of which the model's have ``pixels`` each.

    Files are counted, and their headers are looked at, unless their bytes alone make the request a
    heavy one.
    """
    if message.content_type == NPY:
        return message.size
    if message.parts:
        return weigh_files(message.parts, pixels)
    if is_file_type(message.content_type) and not message.oip:
        return weigh_files((message.body,), pixels)
    density = PIXELS_A_BYTE if message.content_type == MULTIPART else PIXELS_A_BYTE * BASE64
    guess = round(message.size * density)
    if guess > MAX_BODY_BYTES:
        return guess
    if guess > LIGHT_PIXELS:
        return max(guess, pictures(count_files(message), pixels))
    return max(message.size, weigh_files(find_files(message), pixels))


def count_files(message: Message) -> int:
    """At least as many as the files in a form, in JSON or in raw bytes."""
    if message.content_type == MULTIPART:
        return message.body.count(b"\r\n--")
    end = end_of_json(message)
    return message.body.count(b'"', 0, end) // 2 + len(raw_files(message.body[end:]))


def find_files(message: Message) -> Iterable[bytes]:
    """The files in a form, in JSON or in raw bytes, and pieces between them that are no files."""
    if message.content_type == MULTIPART:
        return (part.partition(b"\r\n\r\n")[2] for part in message.body.split(b"\r\n--"))
    end = end_of_json(message)
    strings = (text for text in texts(message.body[:end]) if len(text) >= SHORTEST_TEXT)
    return chain(map(file_in, strings), raw_files(message.body[end:]))


def end_of_json(message: Message) -> int:
    """Where the raw tensors of an OIP request begin; the end of the body where there are none."""
    length = message.headers.get(HEADER_LENGTH, "") if message.oip else ""
    size = len(message.body)
    return min(int(length), size) if LENGTH_FORM.fullmatch(length) else size


def texts(body: bytes) -> list[str]:
    """The pieces of JSON between two quotes; none where it is no text at all."""
    try:  # json.loads reads UTF-16 and UTF-32 too
        return body.decode(json.detect_encoding(body), "surrogatepass").split('"')
    except ValueError:
        return []


def file_in(text: str) -> bytes:
    """The file that a piece of JSON between two quotes holds; nothing where it holds none."""
    try:
        return read_text(json.loads(f'"{text}"') if "\\" in text else text)
    except (ValueError, InvalidImage):
        return b""


def raw_files(raw: bytes) -> list[bytes]:
    """The elements of a BYTES tensor; none where that can't be one."""
    try:
        return split_files(raw, MAX_IMAGES)
    except InvalidRequest:
        return []


def weigh_files(files: Iterable[bytes], pixels: int) -> int:
    """The pixels of some files, each of which is to become an image of ``pixels``."""
    return min(sum(weigh_file(file, pixels) for file in files), MAX_REQUEST_PIXELS)


def weigh_file(file: bytes, pixels: int) -> int:
    """The pixels of one file, or of the image that it is to become, whichever is more.

    What isn't read as an image costs what it takes to see that: its bytes.
    """
    kind = "PNG" if file.startswith(PNG_HEAD) else named(SIGNATURES, file) or kind_by_brand(file)
    if kind is None:
        return len(file)
    return max(len(file), pixels, declared_pixels(kind, file))


def declared_pixels(kind: str, file: bytes) -> int:
    """The pixels that a PNG or a JPEG declares, or a guess for a file of another kind.

    A file that declares more than it may, or more than its bytes can hold, is refused undecoded.
    """
    if kind == "PPM":  # not compressed
        return len(file) * PIXELS_A_BYTE
    size = None
    if kind == "PNG":
        size = png_size(file)
    elif kind == "JPEG":
        size = jpeg_size(file)
    if size is None:  # a WebP or an AVIF of 2 kB may have 50 megapixels
        return max(len(file) * PIXELS_A_BYTE, LIGHT_PIXELS + 1)
    most = len(file) * (DENSEST_JPEG if kind == "JPEG" else DENSEST)
    declared = size[0] * size[1]
    return declared if declared <= min(most, MAX_IMAGE_PIXELS) else 0


def png_size(file: bytes) -> tuple[int, int]:
    """Width and height of a PNG; 0 and 0 of a stump."""
    found = file[len(PNG_HEAD) : len(PNG_HEAD) + PNG_SIZE.size]
    width, height = PNG_SIZE.unpack(found) if len(found) == PNG_SIZE.size else (0, 0)
    return width, height


def jpeg_size(file: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG; None if they aren't near its beginning."""
    head = file[:JPEG_HEAD_BYTES]
    for marker, start, _, _ in islice(jpeg_segments(head), JPEG_HEAD_PARTS):
        if marker in START_OF_FRAME and start + 5 + JPEG_SIZE.size <= len(head):
            height, width = JPEG_SIZE.unpack_from(head, start + 5)
            return height, width
    return None
