"""How much one request may carry, and images cut into chunks that keep to it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pinhole.answers import Answer
from pinhole.errors import BadRequest
from pinhole.images import Item

# The most images in a request. More images are no faster each, and the caller waits longer.
ROWS = 1_024

# The most files in a request. A small photograph takes the service 10 ms, and a client waits 10 s.
FILES = 256

# Bytes of a request beside its images: an array's header, or JSON's brackets and commas.
ENVELOPE_BYTES = 1_024

# Bytes of a reply for each picture beside its pixels: PNG's headers, mse, anomaly score.
PICTURE_BYTES = 256


@dataclass(frozen=True)
class Limits:
    """The most that a service accepts; the defaults are what the contract grants.

    Attributes:
        body_bytes: of a request's body.
        reply_bytes: of a reply's body.
        rows: images or embeddings in a request.
        image_bytes: of one image's pixels, which a reply may hold; 0 if that isn't known.
    """

    body_bytes: int = 16 << 20
    reply_bytes: int = 32 << 20
    rows: int = 4_096
    image_bytes: int = 0

    @property
    def room_bytes(self) -> int:
        """Bytes of a request that are left for its images."""
        return self.body_bytes - ENVELOPE_BYTES

    def rows_of(self, row_bytes: int) -> int:
        """The most rows of ``row_bytes`` each in a request whose pictures fit into a reply."""
        picture_bytes = in_base64(self.image_bytes) + PICTURE_BYTES
        fitting = min(self.room_bytes // max(1, row_bytes), self.reply_bytes // picture_bytes)
        pixels = self.body_bytes // max(1, self.image_bytes)  # A small file counts as its pixels.
        return max(1, min(ROWS, self.rows, fitting, pixels))


def read_limits(page: Any) -> Limits:
    """The limits in an endpoint's metadata.

    Raises:
        LookupError, TypeError, ValueError: the page isn't the metadata of a pinhole service.
    """
    limits, image = page["limits"], page["image"]
    return Limits(
        body_bytes=int(limits["body_bytes"]),
        reply_bytes=int(limits["reply_bytes"]),
        rows=int(limits["images"]),
        image_bytes=int(image["channels"]) * int(image["height"]) * int(image["width"]),
    )


def cut(items: Iterable[Item], limits: Limits) -> Iterator[list[Item]]:
    """Cut images into chunks that fit into a request each.

    A chunk holds files only, or pixels of one shape only. A file that is too large to share a
    request makes a chunk of its own.
    """
    rows, room_bytes = limits.rows_of(0), limits.room_bytes
    chunk = list[Item]()
    for item in items:
        cost_bytes = sent_bytes(item)
        most = min(FILES, rows) if isinstance(item, bytes) else rows
        full = cost_bytes > room_bytes or len(chunk) >= most
        if chunk and (full or kind_of(item) != kind_of(chunk[0])):
            yield chunk
            chunk, room_bytes = [], limits.room_bytes
        chunk.append(item)
        room_bytes -= cost_bytes
    if chunk:
        yield chunk


def sent_bytes(item: Item) -> int:
    """Bytes that an item takes in a request with other items: files are sent in base64, quoted."""
    return in_base64(len(item)) + 3 if isinstance(item, bytes) else item.nbytes


def in_base64(size_bytes: int) -> int:
    """The length of ``size_bytes`` bytes in base64."""
    return (size_bytes + 2) // 3 * 4


def kind_of(item: Item) -> tuple[int, ...] | None:
    """The shape of pixels; None for a file."""
    return None if isinstance(item, bytes) else item.shape


def too_large(item: Item, limits: Limits) -> BadRequest | None:
    """The refusal of a file that no request can carry, which is known without sending it."""
    if not isinstance(item, bytes) or len(item) <= limits.body_bytes:
        return None
    message = f"the file has {len(item):,} bytes; the limit is {limits.body_bytes:,}"
    return BadRequest(message, 413, "PayloadTooLarge")


def ask_in_rounds(
    chunk: list[Item], ask: Callable[[list[Item]], list[Answer | BadRequest]]
) -> list[Answer | BadRequest]:
    """Ask about a chunk; ask again about the images that the request had no room for.

    The service limits the pixels of all files in a request, and only the service, which reads the
    files, knows how many pixels they have. The rounds end when no image lacks room any more, or
    when all images of a round do.
    """
    answers = ask_in_halves(chunk, ask)
    before, waiting = len(chunk), [i for i in range(len(chunk)) if lacks_room(answers[i])]
    while 0 < len(waiting) < before:
        again = ask([chunk[index] for index in waiting])
        for index, answer in zip(waiting, again, strict=True):
            answers[index] = answer
        before, waiting = len(waiting), [i for i in waiting if lacks_room(answers[i])]
    return answers


def ask_in_halves(
    chunk: list[Item], ask: Callable[[list[Item]], list[Answer | BadRequest]]
) -> list[Answer | BadRequest]:
    """Ask about a chunk; where it is too large for a request or for a reply, about each half of it.

    TorchServe without a gateway doesn't say how large its images are.
    """
    try:
        return ask(chunk)
    except BadRequest as error:
        if error.status != 413 or len(chunk) == 1:
            raise
    middle = len(chunk) // 2
    return ask_in_halves(chunk[:middle], ask) + ask_in_halves(chunk[middle:], ask)


def lacks_room(answer: object) -> bool:
    """Whether an image was refused because the images before it had used up the request's room."""
    return isinstance(answer, BadRequest) and answer.type == "PayloadTooLarge"
