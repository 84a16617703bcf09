"""Thousands of damaged requests, what hypothesis makes of the contract, and bombs, over HTTP."""

import asyncio
import io
import itertools
import json
import random
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import requests
from hypothesis import settings
from PIL import Image
from schemathesis import Case

from tests.contract import CHECKS, CONTRACT
from tests.e2e.conftest import Running
from tests.faults.client import Answer, Callers, Question
from tests.faults.conftest import EMBED
from tests.faults.processes import memory_bytes, tree
from tests.faults.test_hostile_bodies import LEAKS, TYPES
from tests.faults.traffic import Card
from tests.serve.pictures.files import chunk, png, whole_files
from tests.serve.pictures.test_damage import damaged

REQUESTS = 10_000  # of damaged requests, to each server
CALLERS = 16
PATIENCE_S = 60.0
MOST_MORE = 100 << 20  # bytes, over the second half of the damaged requests

Note = Callable[[str], None]

pytestmark = pytest.mark.usefixtures("unharmed")


def test_damaged_requests(service: Running, deck: Sequence[Card], note: Note) -> None:
    """Each gets a documented answer, and the sound requests among them their own."""
    began, cards, pids = time.monotonic(), hostile(deck), tree(service.process.pid)
    seen = asyncio.run(send_all(service, itertools.islice(cards, REQUESTS // 2)))
    memory = memory_bytes(pids)
    seen += asyncio.run(send_all(service, cards))
    more = memory_bytes(pids) - memory
    note(
        f"{service.server}: {seen.total():,} damaged requests in {time.monotonic() - began:.0f} s: "
        + ", ".join(f"{count:,} x {status}" for status, count in sorted(seen.items()))
        + f"; the second half took {more >> 20} MiB more"
    )
    assert more < MOST_MORE
    assert seen[200] < seen.total() / 2


async def send_all(service: Running, cards: Iterator[Card]) -> Counter[int]:
    """Send requests from several callers at a time; counts the statuses."""
    callers, seen = Callers(service.port), Counter[int]()

    async def send() -> None:
        for card in cards:
            answer = await asyncio.wait_for(callers.ask(card.question), PATIENCE_S)
            seen[answer.status] += 1
            assert card.is_right(answer), (card.question, answer)
            check(service.server, card.question, answer)

    await asyncio.gather(*(send() for _ in range(CALLERS)))
    callers.close()
    return seen


def hostile(deck: Sequence[Card]) -> Iterator[Card]:
    """Damaged files, damaged requests of every form, odd headers; every tenth is sound."""
    dice = random.Random(4)  # noqa: S311 - repeatable, not secret
    small = [card for card in deck if len(card.question.body) < 20_000]
    for number in range(REQUESTS):
        if number % 10 == 0:
            yield dice.choice(small)
        elif number % 3 == 0:
            yield Card(damaged_file(dice), lambda answer: True, 1)
        else:
            yield Card(damaged_request(dice, dice.choice(small).question), lambda answer: True, 1)


def damaged_file(dice: random.Random) -> Question:
    """A file of a random format with some bytes changed, or cut short."""
    whole = dice.choice(list(whole_files().values()))
    (file,) = damaged(whole, dice.randrange(1 << 30), 1, 0)
    cut = dice.choice((len(file), len(file), dice.randrange(len(file))))
    path = f"/predictions/{dice.choice(('embed', 'reconstruct'))}"
    return Question("POST", path, file[:cut], {"Content-Type": "image/*"})


def damaged_request(dice: random.Random, sound: Question) -> Question:
    """A request whose body was damaged, or a header of which was replaced by another's."""
    headers = dict(sound.headers)
    if dice.random() < 0.3:
        headers[
            dice.choice(
                (
                    "Content-Type",
                    "Accept",
                    "X-Framing",
                    "X-Polarity",
                    "X-Seen",
                    "Inference-Header-Content-Length",
                    "Content-Encoding",
                )
            )
        ] = dice.choice(
            (
                "image/png",
                "application/json",
                "multipart/form-data",
                "multipart/form-data; boundary=",
                "application/x-npy",
                "*/*;q=0",
                "gzip",
                "pad",
                "-1",
                "9" * 30,
                "\xff\x80",
                "",
                "a" * 3_000,
            )
        )
        return Question(sound.method, sound.path, sound.body, headers)
    (body,) = damaged(sound.body, dice.randrange(1 << 30), 1, 0)
    return Question(sound.method, sound.path, body, headers)


def check(server: str, question: Question, answer: Answer) -> None:
    """An answer is documented, in the contract's form, and tells nothing of the inside.

    What TorchServe itself answers is told by the header that it lacks, and may be in its own words.
    """
    if server == "torchserve" and "x-model-digest" not in answer.headers:
        assert answer.status >= 400, (question, answer)
        return
    if answer.status == 200:
        return
    assert answer.status in TYPES, (question, answer)
    error = json.loads(answer.body)
    if question.path.startswith("/v2"):
        assert list(error) == ["error"]
    else:
        assert (error["code"], error["type"] in TYPES[answer.status]) == (answer.status, True)
    assert not LEAKS.search(answer.body), answer


@CONTRACT.parametrize()
@settings(max_examples=200, deadline=None, derandomize=True)
def test_contract(case: Case, service: Running) -> None:
    """Whatever hypothesis makes of the contract is answered as the contract says."""
    if service.server == "torchserve":
        pytest.skip("tests/docker asks for the contract of the gateway before TorchServe")
    case.call_and_validate(base_url=service.url, checks=CHECKS)


def declared_png(width: int, height: int) -> bytes:
    """A PNG of so many black pixels, all of them there, in a few kilobytes."""
    packer = zlib.compressobj(9)
    row = bytes(width // 8 + 1)
    pieces = [packer.compress(row) for _ in range(height)]
    body = chunk(b"IDAT", b"".join(pieces) + packer.flush()) + chunk(b"IEND", b"")
    head = png(1, 0, np.zeros((1, 1), np.uint8), width=width)
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\1\0\0\0\0"
    return head[:8] + chunk(b"IHDR", size) + body


def large(format: str, **options: object) -> bytes:
    """A file of 8,000 x 8,000 pixels."""
    file = io.BytesIO()
    Image.new("L", (8_000, 8_000)).save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "bomb",
    [
        lambda: declared_png(30_000, 30_000),
        lambda: large("JPEG"),
        lambda: large("GIF"),
        lambda: large("WEBP", lossless=True),
        lambda: large("TIFF", compression="tiff_lzw"),
        lambda: large("BMP")[: 1 << 20],
        lambda: b"P5 60000 60000 255\n" + bytes(1 << 16),
        lambda: (
            whole_files()["PNG"][:33]
            + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100 << 20)))
            + whole_files()["PNG"][33:]
        ),
    ],
    ids=["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PGM", "text"],
)
def test_bombs(service: Running, bomb: Callable[[], bytes]) -> None:
    """A small file of very many pixels is refused before they are unpacked; notes are not read."""
    file, began = bomb(), time.monotonic()
    headers = {"Content-Type": "image/*", "X-Framing": "pad"}
    reply = requests.post(service.url + EMBED, file, headers=headers, timeout=30)

    assert reply.status_code in (200, 400)
    assert (reply.status_code == 200) == file.startswith(whole_files()["PNG"][:33])
    assert time.monotonic() - began < 5


def test_packed_bodies_are_not_unpacked(service: Running) -> None:
    """A body that says it is compressed is refused, whatever it would become."""
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    packed = zlib.compress(bytes(200 << 20), wbits=31)

    assert (
        requests.post(service.url + EMBED, packed, headers=headers, timeout=30).status_code == 415
    )
