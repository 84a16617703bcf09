"""Requests that a service refuses, and the most that it takes."""

import json
import re
import struct
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from serve.bundle.limits import MAX_BODY_BYTES, MAX_IMAGES
from serve.bundle.manifest import Bundle
from serve.service import Report, Service
from serve.wire.message import Message

from .conftest import INVALID, FakeEngine, array, b64, envelope, fields, file, png


def test_not_a_number_is_no_embedding(service: Service) -> None:
    """NaN and infinity, which Python's JSON lets through, fail alone."""
    body = b'{"embeddings": [[NaN, 0], [Infinity, 0], [51, 0]]}'

    (reply,) = service.decode([Message(body, {"content-type": "application/json"})])

    assert [error["index"] for error in fields(reply)["errors"]] == [0, 1]


@pytest.mark.parametrize("accept", ["image/png", "application/x-npy"])
def test_nothing_but_failures_is_no_success(service: Service, accept: str) -> None:
    """A picture or an array in which every item failed is an error that names the first failure."""
    wants, vectors = {"accept": accept}, [[np.nan, 0], [1]]
    files = envelope("images", [b64(b"broken"), b64(b"x")], **wants)
    kind = {"content-type": "multipart/form-data", **wants}

    replies = [
        *service.reconstruct([files, Message(b"", kind, parts=(b"broken",))]),
        *service.decode([envelope("embeddings", vectors, **wants)]),
    ]

    assert [reply.status for reply in replies] == [400, 400, 400]
    assert [fields(reply)["type"] for reply in replies] == [*["InvalidImage"] * 2, INVALID]
    messages = [fields(reply)["message"] for reply in replies]
    assert messages[0].startswith("2 of 2 entries failed; entry 0: 6 bytes can't be read")
    assert messages[1].startswith("1 of 1 entries failed; entry 0: 6 bytes can't be read")
    assert messages[2].startswith("2 of 2 entries failed; entry 0: an embedding's numbers are")


def test_json_tells_of_each_failure(service: Service) -> None:
    """A list in JSON is a 200 even if everything in it failed: it has a reason for each."""
    (reply,) = service.reconstruct([envelope("images", [b64(b"broken"), 3])])

    assert fields(reply)["reconstructions"] == [None, None]
    assert [error["index"] for error in fields(reply)["errors"]] == [0, 1]


def test_what_the_model_cannot_draw_fails(service: Service) -> None:
    """A picture that overflowed in the model's arithmetic is a failure, not a black picture."""
    engine, report = service._engine, Report()

    def overflowing(embeddings: np.ndarray) -> np.ndarray:
        images = FakeEngine().decode(embeddings)
        images[embeddings[:, 0] > 6e4] = np.nan
        return images

    engine.decode = overflowing  # type: ignore[method-assign]
    rows = [[51, 0], [1e5, 0]]
    picture = {"accept": "image/png"}

    told, grid, lost = service.decode(
        [
            envelope("embeddings", rows),
            envelope("embeddings", rows, **picture),
            envelope("embeddings", rows[1:], **picture),
        ],
        report,
    )

    assert [image is None for image in fields(told)["images"]] == [False, True]
    assert "can't draw this embedding in fp32" in fields(told)["errors"][0]["message"]
    why = fields(told)["errors"][0]["message"]
    assert grid.headers == {"X-Failed-Indices": "1", "X-First-Failure": why}
    assert (lost.status, fields(lost)["type"]) == (400, INVALID)
    assert report.bad == {INVALID: 3}


@pytest.mark.parametrize(
    ("message", "status", "kind", "words"),
    [
        (file(png(1), **{"x-seen": "maybe"}), 400, "InvalidRequest", "true or false"),
        (file(png(1), **{"x-pictures": "no"}), 400, "InvalidRequest", "X-Pictures must be true"),
        (file(png(1), **{"x-framing": "guess"}), 400, "InvalidRequest", "X-Framing must be one of"),
        (file(png(1), **{"x-polarity": "x"}), 400, "InvalidRequest", "X-Polarity must be one of"),
        (file(b"x", "text/plain"), 415, "UnsupportedMediaType", "image/\\*"),
        (Message(b"{nope", {"content-type": "application/json"}), 400, "InvalidRequest", "JSON"),
        (Message(b"\xff", {"content-type": "application/json"}), 400, "InvalidRequest", "JSON"),
        (Message(b"[" * 99_999, {"content-type": "application/json"}), 400, "InvalidRequest", ""),
        (envelope("pictures", []), 400, "InvalidRequest", '"images"'),
        (file(b""), 400, "InvalidImage", "empty"),
        (envelope("images", [""] * (MAX_IMAGES + 1)), 413, "TooManyImages", "4,097 .* 4,096"),
        (file(bytes(MAX_BODY_BYTES + 1)), 413, "PayloadTooLarge", "16,777,217 .* 16,777,216"),
        (array(np.zeros((1, 9, 9), np.uint8)), 400, "InvalidRequest", r"uint8\[N, 1, 28, 28\]"),
        (array(np.zeros((1, 28, 28))), 400, "InvalidRequest", "float64"),
    ],
)
def test_refusals_name_fault_and_limit(
    service: Service, message: Message, status: int, kind: str, words: str
) -> None:
    """Each refusal has its own status and type, and a message that a stranger understands."""
    (reply,) = service.embed([message])

    answer = fields(reply)
    assert (reply.status, answer["code"], answer["type"]) == (status, status, kind)
    assert re.search(words, answer["message"])


def test_most_images_at_once(service: Service) -> None:
    """A request of exactly MAX_IMAGES is answered."""
    images = np.zeros((MAX_IMAGES, 28, 28), np.uint8)

    (reply,) = service.embed([array(images)])

    assert len(fields(reply)["embeddings"]) == MAX_IMAGES


def raw_files(files: Sequence[bytes]) -> Message:
    """Files as the raw elements of a BYTES tensor in the Open Inference Protocol."""
    raw = b"".join(struct.pack("<I", len(each)) + each for each in files)
    size = {"binary_data_size": len(raw)}
    tensor = {"name": "images", "datatype": "BYTES", "shape": [len(files)], "parameters": size}
    head = json.dumps({"inputs": [tensor]}).encode()
    return Message(head + raw, {"inference-header-content-length": str(len(head))}, oip=True)


def oip_vectors(count: int) -> Message:
    """Embeddings in the Open Inference Protocol."""
    tensor = {
        "name": "embeddings",
        "datatype": "FP32",
        "shape": [count, 2],
        "data": [0] * 2 * count,
    }
    return Message(json.dumps({"inputs": [tensor]}).encode(), {}, oip=True)


@pytest.mark.parametrize("form", ["json", "form", "oip", "decode json", "decode npy", "decode oip"])
def test_pictures_are_counted_before_they_are_made(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Small files and embeddings count as the images they become, before any is read or drawn."""
    image = replace(small_bundle.manifest.image, channels=3, height=64, width=64)
    larger = replace(small_bundle, manifest=replace(small_bundle.manifest, image=image))
    work: list[object] = []
    monkeypatch.setattr("serve.wire.requests.read_image", lambda *given: work.append(given))
    monkeypatch.setattr(FakeEngine, "decode", lambda self, rows: work.append(rows))
    count = MAX_BODY_BYTES // (3 * 64 * 64) + 1
    dot = png(1, (1, 1))
    kind = {"content-type": "multipart/form-data"}
    endpoint, message = {
        "json": ("embed", envelope("images", [b64(dot)] * count)),
        "form": ("embed", Message(b"", kind, parts=[dot] * count)),
        "oip": ("reconstruct", raw_files([dot] * count)),
        "decode json": ("decode", envelope("embeddings", [[0, 0]] * count)),
        "decode npy": ("decode", array(np.zeros((count, 2), np.float32))),
        "decode oip": ("decode", oip_vectors(count)),
    }[form]

    (reply,) = Service(larger, FakeEngine()).operation(endpoint)([message])

    told = fields(reply)
    assert (reply.status, work) == (413, [])
    assert told.get("message", told.get("error")) == (
        "1,366 images of 3 x 64 x 64 are 16,785,408 numbers; the limit is 16,777,216: "
        "send at most 1,365"
    )


def test_as_many_pictures_as_the_limit(small_bundle: Bundle) -> None:
    """The limit itself is answered; and so is one image of a model larger than any limit."""
    answers = []
    for side, count in ((64, MAX_BODY_BYTES // (3 * 64 * 64)), (2_400, 1)):
        image = replace(
            small_bundle.manifest.image, channels=3, height=side, width=side, framing="stretch"
        )
        larger = replace(small_bundle, manifest=replace(small_bundle.manifest, image=image))
        question = envelope("images", [b64(png(1, (1, 1)))] * count)
        answers += Service(larger, FakeEngine()).embed([question])

    assert [reply.status for reply in answers] == [200, 200]
    assert [len(fields(reply)["embeddings"]) for reply in answers] == [1_365, 1]
