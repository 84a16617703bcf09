"""Open Inference Protocol v2: JSON and raw tensors, in and out."""

import json
import struct
from typing import Any

import numpy as np
import pytest

from serve.bundle.errors import RequestError
from serve.bundle.limits import MAX_IMAGES
from serve.errors import InvalidRequest
from serve.service import Service
from serve.wire.message import Message
from serve.wire.oip import read_oip
from serve.wire.replies import Reply

from .conftest import b64, png, read_outputs

SHADES = np.stack([np.full((28, 28), shade, np.uint8) for shade in (10, 20)])


def question(tensor: dict[str, Any], raw: bytes = b"", **fields: Any) -> Message:
    """A request with one input; ``raw`` follows the JSON."""
    head = json.dumps({"inputs": [tensor], **fields}).encode()
    length = {"inference-header-content-length": str(len(head))} if raw else {}
    return Message(head + raw, length, oip=True)


def images(values: np.ndarray, **fields: Any) -> Message:
    """An array of images in JSON."""
    return question(
        {
            "name": "images",
            "datatype": "UINT8",
            "shape": list(values.shape),
            "data": values.tolist(),
        },
        **fields,
    )


def tensors(reply: Reply) -> dict[str, np.ndarray]:
    """The outputs of a reply, as a client of the protocol reads them."""
    assert reply.status == 200, reply.body
    length = int(reply.headers.get("Inference-Header-Content-Length", len(reply.body)))
    head, raw = json.loads(reply.body[:length]), reply.body[length:]
    assert reply.content_type == ("application/octet-stream" if raw else "application/json")
    return read_outputs(head["outputs"], raw)


@pytest.mark.parametrize("nested", [SHADES, SHADES[:, None]])
def test_numbers_in_json(service: Service, nested: np.ndarray) -> None:
    """Numbers in JSON are read as [N, H, W] and as [N, C, H, W], and the reply has the id."""
    (reply,) = service.embed([images(nested, id="mine")])

    assert tensors(reply)["embeddings"].tolist() == [[10, 10], [20, 20]]
    head = json.loads(reply.body)
    assert (head["id"], head["model_name"]) == ("mine", "embed")


def test_any_id_is_repeated(service: Service) -> None:
    """An id may hold anything that JSON can say, half a surrogate pair too."""
    (reply,) = service.embed([images(SHADES, id="\u00e9\ud800")])

    assert json.loads(reply.body)["id"] == "\u00e9\ud800"


def test_raw_in_raw_out(service: Service) -> None:
    """Raw tensors follow the JSON in the request and in the reply, one after the other."""
    tensor = {
        "name": "images",
        "datatype": "UINT8",
        "shape": [2, 28, 28],
        "parameters": {"binary_data_size": SHADES.size},
    }
    striped = SHADES.copy()
    striped[0, ::2] = 0  # half of its rows: mean 5
    message = question(tensor, striped.tobytes(), parameters={"binary_data_output": True})

    (reply,) = service.reconstruct([message])

    found = tensors(reply)
    assert found["reconstructions"][:, 0, 0, 0].tolist() == [
        5,
        20,
    ]  # the means: what the fake draws
    assert found["mse"] == pytest.approx([(5 / 255) ** 2, 0], abs=1e-6)


def test_outputs_are_chosen_by_name(service: Service) -> None:
    """A reply has only the outputs asked for; an unknown name is refused with the known names."""
    chosen = [{"name": "mse", "parameters": {"binary_data": True}}]
    (reply,) = service.reconstruct([images(SHADES, outputs=chosen)])
    assert list(tensors(reply)) == ["mse"]
    assert "Inference-Header-Content-Length" in reply.headers

    (reply,) = service.reconstruct([images(SHADES, outputs=[{"name": "magic"}])])
    assert reply.status == 400
    assert json.loads(reply.body) == {
        "error": "no such output; the outputs are reconstructions, mse"
    }


def test_files_as_bytes(service: Service) -> None:
    """Files are read as base64 in JSON, and raw with a length before each file."""
    files = [png(10), png(20)]
    named = {"name": "images", "datatype": "BYTES", "shape": [2]}
    raw = b"".join(struct.pack("<I", len(file)) + file for file in files)
    in_json = question({**named, "data": [b64(file) for file in reversed(files)]})
    after_json = question({**named, "parameters": {"binary_data_size": len(raw)}}, raw)

    first, second = service.embed([in_json, after_json])

    assert tensors(first)["embeddings"].tolist() == [[20, 20], [10, 10]]
    assert tensors(second)["embeddings"].tolist() == [[10, 10], [20, 20]]


def test_decode_takes_fp32(service: Service) -> None:
    """Decode takes embeddings as FP32 and gives pictures."""
    tensor = {"name": "embeddings", "datatype": "FP32", "shape": [1, 2], "data": [51, 0.5]}

    (reply,) = service.decode([question(tensor)])

    assert tensors(reply)["images"].tolist() == np.full((1, 1, 28, 28), 51).tolist()


def test_one_bad_file_fails_the_request_alone(service: Service) -> None:
    """One bad file fails its whole request, with its index; another request is answered."""
    files = [b64(png(10)), b64(b"garbage")]
    bad = question({"name": "images", "datatype": "BYTES", "shape": [2], "data": files})

    failed, fine = service.embed([bad, images(SHADES)])

    assert failed.status == 400
    assert json.loads(failed.body)["error"].startswith("entry 1: ")
    assert tensors(fine)["embeddings"].tolist() == [[10, 10], [20, 20]]


NUMBERS = {"name": "images", "datatype": "UINT8", "shape": [2], "data": [1, 2]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "pixels"}, 'called "images"'),
        ({"datatype": "FP64"}, "UINT8, FP32 or BYTES"),
        ({"datatype": ["UINT8"]}, "UINT8, FP32 or BYTES"),
        ({"shape": [3]}, "that of 3 numbers; 2 came"),
        ({"shape": [-2]}, "none negative"),
        ({"shape": [2.0]}, "whole numbers"),
        ({"shape": [True]}, "whole numbers"),
        ({"shape": []}, "one to four"),
        ({"shape": [1, 2**31]}, "at most 2,147,483,647"),
        ({"shape": [0, 2**16, 2**16], "data": []}, "at most 2,147,483,647"),
        ({"data": [1, 256]}, "from 0 to 255"),
        ({"data": [1, -1]}, "from 0 to 255"),
        ({"data": [1, 2**70]}, "from 0 to 255"),
        ({"data": [1, 0.5]}, "UINT8 numbers"),
        ({"data": [1, True]}, "UINT8 numbers"),
        ({"data": [1, None]}, "UINT8 numbers"),
        ({"data": ["a" * 40_000] + [""] * 40_000}, "UINT8 numbers"),
        ({"data": [[1], [1, 2]]}, "that of 2 numbers; 3 came"),
        ({"data": [[[[[1, 2]]]]]}, "UINT8 numbers"),
        ({"data": "AQI="}, "UINT8 numbers"),
        ({"datatype": "FP32", "data": [1, True]}, "FP32 numbers"),
        ({"datatype": "FP32", "data": [1, 10**400]}, "out of every range"),
        ({"parameters": {"binary_data_size": 2}}, "must be the 0 bytes"),
        ({"parameters": {"binary_data_size": False}}, "must be the 0 bytes"),
        ({"parameters": {"shared_memory_region": "x"}}, "shared_memory_region is not offered"),
        ({"parameters": {"classification": 1}}, "classification is not offered"),
        ({"datatype": "BYTES", "shape": [1], "data": ["&"]}, "base64"),
        ({"datatype": "BYTES", "data": ["AQI="]}, "that of 2 elements; 1 came"),
        ({"datatype": "BYTES", "data": [["AQI="]]}, "flat list"),
    ],
)
def test_wrong_tensors_are_described(change: dict[str, Any], words: str) -> None:
    """The message says what is wrong and what would be right."""
    message = question({**NUMBERS, **change})

    with pytest.raises(RequestError, match=words):
        read_oip(message.body, message.headers, "images", ["embeddings"])


@pytest.mark.parametrize(
    ("body", "length", "words"),
    [
        (b"{}", "3", "within the body's 2 bytes"),
        (b"{}", "-1", "within the body's 2 bytes"),
        (b"{}", "two", "within the body's 2 bytes"),
        (b"{}", "9" * 5_000, "within the body's 2 bytes"),
        (b"{nope", None, "not valid JSON"),
        (b"[" * 99_999, None, "not valid JSON"),
        (
            b'{"inputs": [' + b"9" * 4_301 + b"]}",
            None,
            "a number in the body has over 4,300 digits",
        ),
        (b"[]", None, "JSON object"),
        (b"{}", None, "one input"),
        (b'{"inputs": [1]}', None, "one input"),
        (json.dumps({"inputs": [NUMBERS], "id": 3}).encode(), None, "id must be a string"),
        (json.dumps({"inputs": [NUMBERS], "outputs": 3}).encode(), None, "list of objects"),
        (json.dumps({"inputs": [NUMBERS], "outputs": [{}]}).encode(), None, "no such output"),
        (json.dumps({"inputs": [NUMBERS]}).encode() + b"\0", None, "not valid JSON"),
    ],
)
def test_wrong_bodies_are_described(body: bytes, length: str | None, words: str) -> None:
    """A malformed body is refused with a message that says what is wrong."""
    headers = {} if length is None else {"inference-header-content-length": length}

    with pytest.raises(InvalidRequest, match=words):
        read_oip(body, headers, "images", ["embeddings"])


@pytest.mark.parametrize(
    "raw", [b"\1\0", struct.pack("<I", 5) + b"four", struct.pack("<I", 1 << 31)]
)
def test_raw_files_that_end_early(raw: bytes) -> None:
    """A length that points past the end of the body is refused."""
    size = {"binary_data_size": len(raw)}
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "parameters": size}
    message = question(tensor, raw)

    with pytest.raises(InvalidRequest, match="ends within"):
        read_oip(message.body, message.headers, "images", ["embeddings"])


@pytest.mark.parametrize(
    "headers", [{"content-type": "application/x-www-form-urlencoded"}, {"content-encoding": "gzip"}]
)
def test_other_types_are_415(service: Service, headers: dict[str, str]) -> None:
    """A form, which is what ``curl -d`` sends, and a compressed body are refused with 415."""
    (reply,) = service.embed([Message(b"", headers, oip=True)])

    assert (reply.status, list(json.loads(reply.body))) == (415, ["error"])


def test_raw_bytes_nobody_claims() -> None:
    """Bytes after the JSON are refused where no input has a size for them."""
    message = question(NUMBERS, b"\1\2")

    with pytest.raises(InvalidRequest, match="no input has a binary_data_size"):
        read_oip(message.body, message.headers, "images", ["embeddings"])


def test_limits_and_emptiness(service: Service) -> None:
    """As many images as the limit are answered, one more gets 413, and none at all gets 400."""
    full = np.zeros((MAX_IMAGES + 1, 28, 28), np.uint8)

    def raw(count: int) -> Message:
        size = {"binary_data_size": count * 784}
        tensor = {"name": "images", "datatype": "UINT8", "shape": [count, 28, 28]}
        return question({**tensor, "parameters": size}, full[:count].tobytes())

    at, over = service.embed([raw(MAX_IMAGES), raw(MAX_IMAGES + 1)])
    assert len(tensors(at)["embeddings"]) == MAX_IMAGES
    assert over.status == 413
    assert "the limit is 4,096" in json.loads(over.body)["error"]

    files = {"name": "images", "datatype": "BYTES", "shape": [5_000], "data": [""] * 5_000}
    (many,) = service.embed([question(files)])
    assert many.status == 413

    (nothing,) = service.embed([images(full[:0])])
    assert (nothing.status, list(json.loads(nothing.body))) == (400, ["error"])
