"""Requests at each limit of the contract and just past it, and the memory that they cost."""

import base64
import io
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from serve.bundle.images import write_png
from serve.bundle.limits import (
    MAX_BODY_BYTES,
    MAX_IMAGE_PIXELS,
    MAX_IMAGES,
    MAX_REPLY_BYTES,
    MAX_REQUEST_PIXELS,
)
from serve.bundle.manifest import Bundle
from serve.launcher.settings import SERVERS
from serve.wire.npy import write_npy

from .conftest import Running, running

PEAK_BYTES = 900 << 20  # a worker that has just started takes about 330 MiB
JSON, NPY, PNG = "application/json", "application/x-npy", "image/png"


@pytest.fixture(scope="module", params=SERVERS)
def lone(
    request: pytest.FixtureRequest,
    shipped_bundle: Bundle,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running]:
    """A service with one worker for each endpoint, so that it is known whose memory to watch."""
    folder = tmp_path_factory.mktemp("limits")
    with running(shipped_bundle, folder, "--workers", "1", server=request.param) as service:
        yield service


def post(
    service: Running, body: bytes, content_type: str, endpoint: str = "embed"
) -> requests.Response:
    """One request."""
    url = f"{service.url}/predictions/{endpoint}"
    return requests.post(url, body, headers={"Content-Type": content_type}, timeout=60)


def picture(width: int, height: int, mode: str = "L") -> bytes:
    """A PNG of one stroke, a few kilobytes whatever its size."""
    file, drawing = io.BytesIO(), Image.new(mode, (width, height))
    drawing.paste(255, (width // 3, height // 4, width // 2, height // 2))
    drawing.save(file, "PNG", compress_level=9)
    return file.getvalue()


def images(count: int) -> bytes:
    """An array of ``count`` images."""
    return write_npy(np.zeros((count, 28, 28), np.uint8))


def padded(size: int) -> bytes:
    """A small picture of ``size`` bytes: readers ignore the rubbish after its end."""
    return picture(28, 28).ljust(size, b"\0")


def envelope(*files: bytes) -> bytes:
    """Several files in JSON."""
    return json.dumps({"images": [base64.b64encode(file).decode() for file in files]}).encode()


@pytest.mark.parametrize(
    ("at", "past", "content_type", "status"),
    [
        (lambda: padded(MAX_BODY_BYTES), lambda: padded(MAX_BODY_BYTES + 1), PNG, 413),
        (lambda: images(MAX_IMAGES), lambda: images(MAX_IMAGES + 1), NPY, 413),
        (
            lambda: picture(10_000, MAX_IMAGE_PIXELS // 10_000),
            lambda: picture(10_000, MAX_IMAGE_PIXELS // 10_000 + 1),
            PNG,
            400,
        ),
    ],
    ids=["body", "images", "pixels"],
)
def test_limit_and_one_past_it(
    lone: Running,
    at: Callable[[], bytes],
    past: Callable[[], bytes],
    content_type: str,
    status: int,
) -> None:
    """The limit itself is answered; one more is refused, and the message says what the limit is."""
    assert post(lone, at(), content_type).status_code == 200

    refusal = post(lone, past(), content_type)

    assert refusal.status_code == status
    assert "the limit is" in refusal.json()["message"]


def test_pixels_of_a_whole_request(lone: Running) -> None:
    """Four images of the most pixels are read; a fifth image, of one pixel, is refused alone."""
    largest = picture(10_000, MAX_IMAGE_PIXELS // 10_000)
    files = [largest] * (MAX_REQUEST_PIXELS // MAX_IMAGE_PIXELS)

    reply = post(lone, envelope(*files, picture(1, 1)), JSON).json()

    assert [row is None for row in reply["embeddings"]] == [False] * 4 + [True]
    assert [error["type"] for error in reply["errors"]] == ["PayloadTooLarge"]


def test_body_far_over_the_limit(lone: Running) -> None:
    """A body far over the limit gets a 413, and the service goes on."""
    assert post(lone, bytes(MAX_BODY_BYTES * 2), PNG).status_code == 413
    assert post(lone, picture(28, 28), PNG).status_code == 200


def test_small_request_beside_large_ones(lone: Running) -> None:
    """Each gets its own answer, and may reuse its connection; Granian's small one overtakes."""
    small, url = write_png(np.zeros((1, 28, 28), np.uint8)), f"{lone.url}/predictions/reconstruct"
    expected = post(lone, small, PNG, "reconstruct").json()

    def send(body: bytes, content_type: str) -> tuple[float, dict[str, Any]]:
        reply = post(lone, body, content_type, "reconstruct")
        return time.monotonic(), reply.json()

    with ThreadPoolExecutor() as pool, requests.Session() as session:
        first = pool.submit(send, images(MAX_IMAGES), NPY)
        time.sleep(0.3)  # with TorchServe, the requests that follow share the worker's next batch
        second = pool.submit(send, images(MAX_IMAGES), NPY)
        time.sleep(0.3)
        answers = []
        for _ in range(2):
            reply = session.post(url, small, headers={"Content-Type": PNG}, timeout=60)
            answers.append((time.monotonic(), reply.json()))
        (first_at, one), (second_at, other) = first.result(), second.result()

    if lone.server == "granian":
        assert answers[0][0] - first_at < (second_at - first_at) / 4
    assert [answer for _, answer in answers] == [expected, expected]
    for large in (one, other):
        assert large["mse"] == pytest.approx([expected["mse"]] * MAX_IMAGES)
        assert set(large["reconstructions"]) == {expected["reconstruction"]}


def test_largest_replies_fit(lone: Running) -> None:
    """A reply with as many pictures as a request may ask for is within the limit of a reply."""
    for endpoint in ("reconstruct", "decode"):
        vectors = np.random.default_rng(0).normal(size=(MAX_IMAGES, 2)).astype(np.float32)
        body = write_npy(vectors) if endpoint == "decode" else images(MAX_IMAGES)

        reply = post(lone, body, NPY, endpoint)

        assert reply.status_code == 200
        assert len(reply.content) < MAX_REPLY_BYTES


@pytest.mark.parametrize(
    "hostile",
    [
        lambda: envelope(*[picture(10_000, MAX_IMAGE_PIXELS // 10_000, "RGBA")] * 4),
        lambda: b'{"images": [' + b"[]," * (MAX_BODY_BYTES // 3 - 10) + b"[]]}",
        lambda: b'{"images": ' + b"[" * (MAX_BODY_BYTES - 20),
        lambda: envelope(*[b""] * MAX_IMAGES),
    ],
    ids=["transparency", "lists", "nesting", "nothings"],
)
def test_worst_requests_are_bounded_in_memory(lone: Running, hostile: Callable[[], bytes]) -> None:
    """No body within the limits makes a worker take more than PEAK_BYTES, or kills the worker."""
    pid = lone.worker_pid("embed")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # forget the peak so far

    assert post(lone, hostile(), JSON).status_code in (200, 400, 413)

    assert lone.worker_pid("embed") == pid
    status = Path(f"/proc/{pid}/status").read_text()
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    assert int(peak) * 1024 < PEAK_BYTES
