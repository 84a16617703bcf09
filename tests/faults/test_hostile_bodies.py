"""Bodies and headers that hypothesis makes up, read in this process: cheap, so there are many."""

import io
import json
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve.bundle.manifest import Bundle
from serve.endpoints import ENDPOINTS
from serve.service import Service
from serve.wire.message import Message
from serve.wire.replies import Reply
from tests.serve.conftest import FakeEngine
from tests.serve.pictures.files import whole_files

EXAMPLES = 1_000  # of each test
LEAKS = re.compile(rb"Traceback|\.py\b|/(tmp|home|usr|root|proc)/|0x[0-9a-f]{6,}")
TYPES = {
    400: {"InvalidImage", "InvalidEmbedding", "InvalidRequest"},
    406: {"NotAcceptable"},
    413: {"PayloadTooLarge", "TooManyImages"},
    415: {"UnsupportedMediaType"},
}
many = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
endpoints = st.sampled_from(sorted(ENDPOINTS))
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
headers = st.text(st.characters(codec="latin-1", exclude_characters="\0\r\n"), max_size=40)


@pytest.fixture(scope="module")
def fake(small_bundle: Bundle) -> Service:
    """The service on the fake engine."""
    return Service(small_bundle, FakeEngine())


def check(service: Service, endpoint: str, message: Message) -> Reply:
    """Answer a message; the reply must be one of the contract's."""
    (reply,) = service.operation(endpoint)([message])
    if reply.status != 200:
        assert reply.status in TYPES
        error = json.loads(reply.body)
        if message.oip:
            assert list(error) == ["error"]
        else:
            assert error["type"] in TYPES[reply.status]
            assert error["code"] == reply.status
        assert not LEAKS.search(reply.body), reply.body
    return reply


@many
@given(data=st.data(), endpoint=st.sampled_from(("embed", "reconstruct")))
def test_damaged_files(fake: Service, data: st.DataObject, endpoint: str) -> None:
    """Files of every format, with bytes changed, taken out or put in anywhere."""
    kind = data.draw(st.sampled_from(sorted(whole_files())))
    file = data.draw(damaged(whole_files()[kind]))
    check(fake, endpoint, Message(file, {"content-type": "image/png"}))


@many
@given(data=st.data(), endpoint=endpoints)
def test_damaged_arrays(fake: Service, data: st.DataObject, endpoint: str) -> None:
    """Arrays as files, damaged, or with a header of any shape and type."""
    file = io.BytesIO()
    np.save(file, np.zeros((2, 28, 28), np.uint8))
    dtype = data.draw(st.sampled_from(("|u1", "<f4", ">f4", "<f8", "|O", "<U9", "|V3", "<M8[s]")))
    shape = data.draw(st.lists(st.integers(-1, 2**70), max_size=5).map(tuple))
    head = repr({"descr": dtype, "fortran_order": data.draw(st.booleans()), "shape": shape})
    made = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode()
    body = data.draw(damaged(file.getvalue()) | st.binary(max_size=99).map(lambda b: made + b))
    check(fake, endpoint, Message(body, {"content-type": "application/x-npy"}))


@many
@given(
    body=st.dictionaries(st.sampled_from(("images", "embeddings", "x")), values), endpoint=endpoints
)
def test_any_json(fake: Service, body: dict[str, Any], endpoint: str) -> None:
    """JSON of the contract's fields with any values."""
    check(fake, endpoint, Message(json.dumps(body).encode(), {"content-type": "application/json"}))


tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(("images", "embeddings")) | values,
        "datatype": st.sampled_from(("UINT8", "FP32", "BYTES")) | values,
        "shape": st.lists(st.integers(-1, 2**33), max_size=5) | values,
        "data": st.lists(values, max_size=4) | values,
        "parameters": st.dictionaries(
            st.sampled_from(("binary_data_size", "shared_memory_region", "x")), values
        ),
    },
)
questions = st.fixed_dictionaries(
    {},
    optional={
        "id": values,
        "inputs": st.lists(tensors, max_size=2) | values,
        "outputs": st.lists(st.fixed_dictionaries({"name": values}), max_size=2) | values,
        "parameters": values,
    },
)


@many
@given(question=questions, raw=st.binary(max_size=64), off=st.integers(-3, 3), endpoint=endpoints)
def test_any_tensors(
    fake: Service, question: dict[str, Any], raw: bytes, off: int, endpoint: str
) -> None:
    """The Open Inference Protocol with any fields, any raw bytes, and lengths that don't fit."""
    head = json.dumps(question).encode()
    length = {"inference-header-content-length": str(len(head) + off)} if raw else {}
    check(fake, endpoint, Message(head + raw, length, oip=True))


@many
@given(
    names=st.dictionaries(
        st.sampled_from(
            (
                "content-type",
                "accept",
                "x-framing",
                "x-polarity",
                "x-seen",
                "content-encoding",
                "inference-header-content-length",
            )
        ),
        headers
        | st.sampled_from(
            (
                "image/png",
                "application/json",
                "multipart/form-data",
                "application/x-npy;q=0.1, */*;q=0",
                "*/*",
                "pad",
                "true",
            )
        ),
    ),
    endpoint=endpoints,
    oip=st.booleans(),
)
def test_any_headers(fake: Service, names: dict[str, str], endpoint: str, oip: bool) -> None:
    """Every header that is read, with any value."""
    check(fake, endpoint, Message(whole_files()["PNG"], names, oip=oip))


class Bomb:
    """What would run if it were unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return pytest.fail, ("it was unpickled",)


@pytest.mark.parametrize("endpoint", sorted(ENDPOINTS))
def test_nothing_is_unpickled(fake: Service, endpoint: str) -> None:
    """An array of objects, whose bytes are a pickle that would run code, is refused unread."""
    file = io.BytesIO()
    np.save(file, np.array([Bomb()], object), allow_pickle=True)

    reply = check(fake, endpoint, Message(file.getvalue(), {"content-type": "application/x-npy"}))

    assert reply.status == 400


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file with a few bytes changed, taken out or put in, most of them near its start."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 5))):
        end = draw(st.sampled_from((64, 400, len(data))))
        at = draw(st.integers(0, max(0, min(end, len(data)) - 1)))
        taken = draw(st.sampled_from((0, 1, 1, 1, 4, 100)))
        data[at : at + taken] = draw(st.binary(min_size=1, max_size=8))
    return bytes(data)
