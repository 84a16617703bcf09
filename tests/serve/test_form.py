"""Multipart forms, as browsers and curl send them, and as nobody should."""

import random

import pytest
import requests

from serve.bundle.errors import RequestError, TooManyImages
from serve.bundle.limits import MAX_IMAGES
from serve.errors import InvalidRequest
from serve.wire.form import read_form

TYPE = "multipart/form-data; boundary=x"


def test_files_in_order_without_the_text_fields() -> None:
    """Every file counts, of whatever field; text fields don't."""
    parts = [
        ("images", ("a.png", b"one")),
        ("note", (None, "text")),
        ("images", ("b", b"\0\r\n--")),
    ]
    sent = requests.Request("POST", "http://x", files=parts).prepare()
    assert isinstance(sent.body, bytes)

    assert read_form(sent.body, sent.headers["Content-Type"]) == [b"one", b"\0\r\n--"]


def test_a_text_field_may_have_a_type() -> None:
    """What has no file name is no file, whatever its Content-Type: TorchServe reads forms so."""
    head = b'Content-Disposition: form-data; name="i"\r\nContent-Type: text/plain'
    body = b"--x\r\n" + head + b"\r\n\r\nscan 7\r\n--x--\r\n"

    assert read_form(body, TYPE) == []


def form(count: int) -> bytes:
    """A form of many small files."""
    part = b'--x\r\nContent-Disposition: form-data; name="i"; filename="i"\r\n\r\nP\r\n'
    return part * count + b"--x--\r\n"


def test_as_many_files_as_images() -> None:
    """The limit itself is read; one more is refused."""
    assert len(read_form(form(MAX_IMAGES), TYPE)) == MAX_IMAGES
    with pytest.raises(TooManyImages, match="4,097 entries; the limit is 4,096"):
        read_form(form(MAX_IMAGES + 1), TYPE)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(1), "multipart/form-data; boundary=y"),
        (form(2)[:-20], TYPE),
        (b"no form at all", TYPE),
        (form(3 * MAX_IMAGES), TYPE),
        (b"--x\r\n" + b"A: b\r\n" * 99 + b"\r\nP\r\n--x--\r\n", TYPE),
    ],
    ids=["another boundary", "cut", "no form", "parts", "headers"],
)
def test_what_cannot_be_taken_apart_is_refused(body: bytes, content_type: str) -> None:
    """Each fault is the request's, and is told."""
    with pytest.raises(InvalidRequest, match="the form can't be read: "):
        read_form(body, content_type)


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary="])
def test_no_boundary_is_named(kind: str) -> None:
    """It is missing where a caller has written the header by hand."""
    with pytest.raises(InvalidRequest, match="the form's Content-Type has no boundary; leave"):
        read_form(form(1), kind)


def test_names_are_in_any_encoding() -> None:
    """Nothing uses the name of a file, so one that isn't UTF-8 is read too."""
    body = form(1).replace(b'filename="i"', b'filename="\xe9.png"')

    assert read_form(body, TYPE) == [b"P"]


def test_any_bytes_are_read_or_refused() -> None:
    """Whatever is done to a form, it is read or refused."""
    chance, whole = random.Random(0), form(3)  # noqa: S311
    for _ in range(2_000):
        body = bytearray(whole)
        for _ in range(chance.randint(1, 5)):
            at = chance.randrange(len(body))
            body[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
        try:
            read_form(bytes(body), TYPE)
        except RequestError:
            continue
