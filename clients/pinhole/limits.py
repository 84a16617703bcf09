"""How much one request may carry, and images cut to that measure."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pinhole.errors import BadRequest
from pinhole.images import Item

Answer = TypeVar("Answer")

ROWS = 1_024  # images a request: more gain nothing, and take longer than a caller should wait
ENVELOPE_BYTES = 1_024  # around the images of a request: the head of an array, brackets, commas
PICTURE_BYTES = 256  # around the pixels of one in a reply: PNG's head, mse, anomaly


@dataclass(frozen=True)
class Limits:
    """What a service accepts; without arguments, what the contract grants.

    Attributes:
        body_bytes: of a request.
        reply_bytes: of its answer.
        rows: images or embeddings of a request.
        image_bytes: of one image's pixels, which come back; 0 where that isn't known.
    """

    body_bytes: int = 16 << 20
    reply_bytes: int = 32 << 20
    rows: int = 4_096
    image_bytes: int = 0

    @property
    def room_bytes(self) -> int:
        """For the images of a request."""
        return self.body_bytes - ENVELOPE_BYTES

    def rows_of(self, row_bytes: int) -> int:
        """How many rows of so many bytes make a good request, whose pictures fit into its reply."""
        picture_bytes = in_base64(self.image_bytes) + PICTURE_BYTES
        fitting = min(self.room_bytes // max(1, row_bytes), self.reply_bytes // picture_bytes)
        return max(1, min(ROWS, self.rows, fitting))


def read_limits(page: Any) -> Limits:
    """The limits in an endpoint's metadata.

    Raises:
        LookupError, TypeError, ValueError: it isn't the metadata of a pinhole service.
    """
    limits, image = page["limits"], page["image"]
    return Limits(
        body_bytes=int(limits["body_bytes"]),
        reply_bytes=int(limits["reply_bytes"]),
        rows=int(limits["images"]),
        image_bytes=int(image["channels"]) * int(image["height"]) * int(image["width"]),
    )


def cut(items: Iterable[Item], limits: Limits) -> Iterator[list[Item]]:
    """Cut into chunks that fit a request each: files only, or pixels of one shape only.

    A file too large for company makes a chunk of its own.
    """
    most, room_bytes = limits.rows_of(0), limits.room_bytes
    chunk = list[Item]()
    for item in items:
        cost_bytes = sent_bytes(item)
        full = cost_bytes > room_bytes or len(chunk) >= most
        if chunk and (full or kind_of(item) != kind_of(chunk[0])):
            yield chunk
            chunk, room_bytes = [], limits.room_bytes
        chunk.append(item)
        room_bytes -= cost_bytes
    if chunk:
        yield chunk


def sent_bytes(item: Item) -> int:
    """What an item takes of a request with others: files travel in base64, quoted."""
    return in_base64(len(item)) + 3 if isinstance(item, bytes) else item.nbytes


def in_base64(size_bytes: int) -> int:
    """The length of so many bytes in base64."""
    return (size_bytes + 2) // 3 * 4


def kind_of(item: Item) -> tuple[int, ...] | None:
    """The shape of pixels; None of a file."""
    return None if isinstance(item, bytes) else item.shape


def too_large(item: Item, limits: Limits) -> BadRequest | None:
    """The refusal of a file that no request can carry; it needn't be sent to be known."""
    if not isinstance(item, bytes) or len(item) <= limits.body_bytes:
        return None
    message = f"the file has {len(item):,} bytes; the limit is {limits.body_bytes:,}"
    return BadRequest(message, 413, "PayloadTooLarge")


def settle(
    chunk: list[Item], ask: Callable[[list[Item]], list[Answer | BadRequest]]
) -> list[Answer | BadRequest]:
    """Ask about a chunk, and anew about what that request had no pixels left for.

    How many pixels a file holds shows only where it is read.
    """
    answers = ask(chunk)
    before, waiting = len(chunk), [i for i in range(len(chunk)) if lacks_room(answers[i])]
    while 0 < len(waiting) < before:
        again = ask([chunk[index] for index in waiting])
        for index, answer in zip(waiting, again, strict=True):
            answers[index] = answer
        before, waiting = len(waiting), [i for i in waiting if lacks_room(answers[i])]
    return answers


def lacks_room(answer: object) -> bool:
    """Whether an image was refused for those before it."""
    return isinstance(answer, BadRequest) and answer.type == "PayloadTooLarge"
