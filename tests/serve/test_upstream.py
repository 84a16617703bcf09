"""The worker reads what the JVM sends."""

import io
import socket
import struct
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ts.service
from ts.context import Context
from ts.protocol import otf_message_handler

from serve.torchserve.messages import to_message
from serve.torchserve.upstream import PARTS, Frames


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_batch_is_read_as_torchserve_reads_it(piece: int) -> None:
    """Frames reads a batch as TorchServe's reader does, and its files, in pieces of any size."""
    large = np.random.default_rng(0).bytes(200 if piece < 1_000 else 300_000)
    message = batch_of(
        [
            ({"Content-Type": "image/png", "Ä": "ö"}, [("body", "image/png", large)]),
            ({}, []),
            ({"a": ""}, [("x", "", b""), ("y", "text/plain", b"two")]),
        ]
    )

    requests = received(message, piece)
    files = [request["parameters"].pop() for request in requests]

    assert requests == as_torchserve_reads(message)
    assert [each["name"] for each in files] == [PARTS] * 3
    assert [each["value"] for each in files] == [[large], [], [b"two"]]


def as_torchserve_reads(message: bytes) -> Any:
    """A batch by TorchServe's own reader, which takes its bytes one string at a time."""
    file = io.BytesIO(message)
    connection = SimpleNamespace(recv=file.read)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TS_DECODE_INPUT_REQUEST", "false")
        return otf_message_handler._retrieve_inference_msg(connection)


def test_worker_exits_once_the_jvm_has_closed() -> None:
    """Bytes are read in any sizes; once none are left and the JVM has closed, the worker exits."""
    ours, theirs = socket.socketpair()
    frames = Frames(ours)
    with ours, theirs:
        theirs.sendall(bytes(range(256)) * 40)
        pieces = [frames.take(count) for count in (1, 4, 0, 9_000, 1_000)]
        assert b"".join(pieces) == (bytes(range(256)) * 40)[:10_005]
        theirs.close()
        assert len(frames.take(235)) == 235
        with pytest.raises(SystemExit):
            frames.take(1)


def test_path_and_parts_make_the_message() -> None:
    """A request without url_path is OIP; of a form, the files are taken and the texts are not."""
    form = {"content-type": "multipart/form-data; boundary=x", "url_path": ""}
    files = [("images", "image/png", b"a"), ("images", "image/png", b"b")]
    text, whole = ("note", "", b"hello"), ("body", "Multipart/Form-Data", b"no boundary")
    named = ("data", "image/png", b"c")  # a field may be called like a raw body
    body = ("body", "image/png", b"one")
    batch = [
        (form, [*files, text, named]),
        (form, [whole]),
        ({"url_path": ""}, [body]),
        ({}, [body]),
    ]

    requests = received(batch_of(batch))
    heads, rows, ids = ts.service.Service.retrieve_data_for_inference(requests)
    context = Context("embed", "/", {}, 1, None, "0.12.0")
    context.request_processor = heads
    several, none, one, oip = (to_message(row, context, i) for i, row in enumerate(rows))

    assert list(ids.values()) == ["id-0", "id-1", "id-2", "id-3"]
    assert (several.body, [*several.parts]) == (b"", [b"a", b"b", b"c"])
    assert (none.body, [*none.parts]) == (b"", [])
    assert (one.body, [*one.parts], one.oip) == (b"one", [], False)
    assert (oip.body, oip.oip) == (b"one", True)


def batch_of(requests: Sequence[tuple[dict[str, str], list[tuple[str, str, bytes]]]]) -> bytes:
    """A batch as the JVM sends it: requests of headers and parameters."""

    def string(content: str | bytes) -> bytes:
        raw = content.encode() if isinstance(content, str) else content
        return struct.pack("!i", len(raw)) + raw

    end, message = struct.pack("!i", -1), b""
    for index, (headers, parameters) in enumerate(requests):
        message += string(f"id-{index}")
        message += b"".join(string(name) + string(value) for name, value in headers.items()) + end
        message += b"".join(b"".join(map(string, parameter)) for parameter in parameters) + end
    return message + end


def received(message: bytes, piece: int = 1 << 20) -> list[dict[str, Any]]:
    """A batch as Frames reads it, sent in pieces of ``piece`` bytes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def send() -> None:
            for start in range(0, len(message), piece):
                theirs.sendall(message[start : start + piece])

        sending = threading.Thread(target=send)
        sending.start()
        batch = Frames(ours).batch()
        sending.join()
    return batch
