"""The client against a local server that answers whatever a test tells it to."""

import base64
import json
import math
import os
import re
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pinhole import (
    BadRequest,
    Busy,
    Client,
    PinholeError,
    Reconstruction,
    Score,
    ServerError,
    Unauthorized,
    Unavailable,
    transport,
)
from pinhole.tensors import pack, unpack

from .script import Script, serve


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """A scripted server on a free port; retries don't pause."""
    monkeypatch.setattr(transport, "PAUSE_S", 0)
    monkeypatch.setattr(transport, "JITTER_S", 0)
    monkeypatch.setattr(transport, "LONGEST_PAUSE_S", 1)
    with serve(Script()) as script:
        yield script


@pytest.fixture
def client(script: Script) -> Iterator[Client]:
    """A client of the scripted server."""
    with Client(script.url + "/", api_key="secret", timeout_s=2) as client:
        yield client


def error(status: int, kind: str = "Any", message: str = "why") -> dict[str, object]:
    """An error body of the contract."""
    return {"code": status, "type": kind, "message": message}


def test_one_file_one_embedding(script: Script, client: Client, tmp_path: Path) -> None:
    """A path and its bytes make the same request, with the key, and give float32[D]."""
    (tmp_path / "a.png").write_bytes(b"file")
    script.say(200, {"embedding": [1.5, -2.0]})

    for image in (b"file", tmp_path / "a.png", str(tmp_path / "a.png")):
        embedding = client.embed(image)
        assert embedding.tolist() == [1.5, -2.0]
        assert embedding.dtype == np.float32
    for path, headers, body in script.requests:
        assert (path, body) == ("/predictions/embed", b"file")
        assert headers["Authorization"] == "Bearer secret"


def test_many_files_one_request(script: Script, client: Client) -> None:
    """A list travels as one JSON envelope."""
    script.say(200, {"embeddings": [[1, 2], [3, 4]], "errors": []})

    assert client.embed([b"a", b"b"]).tolist() == [[1, 2], [3, 4]]
    (request,) = script.requests
    assert json.loads(request[2]) == {
        "images": [base64.b64encode(name).decode() for name in (b"a", b"b")]
    }


def test_many_images_many_requests(script: Script, client: Client) -> None:
    """Each request has as many images as the service allows; the answers are one array."""
    limits = {"body_bytes": 9_999, "reply_bytes": 9_999, "images": 2}
    image = {"channels": 1, "height": 4, "width": 4}
    script.page = {"limits": limits, "image": image}
    rows = np.arange(10, dtype=np.float32).reshape(5, 2)
    for part in np.split(rows, [2, 4]):
        script.say(200, pack(part))

    found = client.embed(np.full((4, 4), value, np.uint8) for value in range(5))

    assert np.array_equal(found, rows)
    sent = [unpack(body) for _, _, body in script.requests]
    assert [array.shape for array in sent] == [(2, 1, 4, 4), (2, 1, 4, 4), (1, 1, 4, 4)]
    assert [int(array[0, 0, 0, 0]) for array in sent] == [0, 2, 4]
    assert script.pages_told == 1


def test_nothing_has_a_width(script: Script, client: Client) -> None:
    """No images give no rows, but as many columns as any embedding has."""
    script.say(200, {"embedding": [0, 0, 0]})

    assert client.embed([]).shape == (0, 3)
    assert client.reconstruct([]) == []


def test_many_reconstructions(script: Script, client: Client) -> None:
    """Each image has a reconstruction, or its refusal in its place."""
    anomaly = {"percentile": 97.3, "outlier": False}
    failure = {"index": 1, "type": "InvalidImage", "message": "unreadable"}
    script.say(
        200,
        {
            "reconstructions": [base64.b64encode(b"PNG").decode(), None],
            "mse": [0.02, None],
            "anomaly": [anomaly, None],
            "errors": [failure],
        },
    )

    good, bad = client.reconstruct_each([b"a", b"b"])

    assert good == Reconstruction(b"PNG", 0.02, 97.3, False)
    assert isinstance(bad, BadRequest)
    with pytest.raises(BadRequest, match="image 1: unreadable"):
        client.reconstruct([b"a", b"b"])


def test_one_embedding_one_image(script: Script, client: Client) -> None:
    """[D] in, [C, H, W] out."""
    script.say(200, pack(np.zeros((1, 1, 4, 4), np.uint8)))

    assert client.decode([0.5, 1]).shape == (1, 4, 4)
    with pytest.raises(ValueError, match=r"these are \[1, 1, 2\]"):
        client.decode([[[0.5, 1]]])


def test_refused_rows_count_from_the_first_request(script: Script, client: Client) -> None:
    """Rows are counted from the first row of all requests."""
    limits = {"body_bytes": 9_999, "reply_bytes": 9_999, "images": 4}
    script.page = {"limits": limits, "image": {"channels": 1, "height": 1, "width": 1}}
    script.say(200, pack(np.zeros((4, 1, 1, 1), np.uint8)))
    script.say(200, pack(np.zeros((2, 1, 1, 1), np.uint8)), X_Failed_Indices="0,1")

    with pytest.raises(BadRequest, match="rows 4,5"):
        client.decode(np.zeros((6, 2)))


def test_netrc_does_not_replace_the_key(
    script: Script, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself, requests would replace the key by an entry for the host in the .netrc."""
    (tmp_path / "netrc").write_text("default login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    script.say(200, {"embedding": [1, 2]})

    client.embed(b"x")

    assert script.requests[0][1]["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"url": "127.0.0.1:8080"}, "http://HOST:PORT .* got 127"),
        ({"url": "http://"}, "http://HOST:PORT"),
        ({"url": "http://host:99999"}, "got http://host:99999"),
        ({"url": "http://host?key=secret"}, "no query; got http://host$"),
        ({"url": "http://host/ path"}, "http://HOST:PORT"),
        ({"url": "ftp://me:secret@host"}, r"got \*\*\*@host"),
        ({"url": "me:secret@host"}, r"got \*\*\*@host"),
        ({"url": "http://me:se/cret@host"}, r"got \*\*\*@host"),
        ({"url": "http://me:secret@[::1"}, r"got \*\*\*@\[::1"),
        ({"api_key": "secret\n"}, "without spaces and line breaks"),
        ({"api_key": "secr\u00e9t"}, "an API key is ASCII"),
        ({"api_key": "sec\u0440et"}, "an API key is ASCII"),
        *(({"timeout_s": s}, "above 0") for s in (0, -1, math.nan, math.inf, 1e10)),
    ],
)
def test_what_no_request_can_use_is_refused(arguments: dict[str, object], words: str) -> None:
    """The error is a ValueError at once, in words that hold no secret."""
    with pytest.raises(ValueError, match=words) as refusal:
        Client(**{"url": "http://127.0.0.1:9", **arguments})

    assert not re.search("secr|cret", str(refusal.value))


def test_credentials_in_the_url_are_sent_not_shown(script: Script) -> None:
    """They are Basic authentication, unless there is a key; no error repeats them."""
    url = script.url.replace("//", "//me:s%40cret@")
    script.say(200, {"embedding": [1, 2]})

    for key in (None, "key"):
        with Client(url, key) as client:
            client.embed(b"x")
            assert client.url == script.url
    script.say(0)
    with Client(url) as client, pytest.raises(Unavailable) as failure:
        client.embed(b"x")

    sent = [headers["Authorization"] for _, headers, _ in script.requests[:2]]
    assert sent == ["Basic " + base64.b64encode(b"me:s@cret").decode(), "Bearer key"]
    assert "cret" not in "".join(traceback.format_exception(failure.value))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_forked_child_has_connections_of_its_own(script: Script, client: Client) -> None:
    """Two processes on one connection read each other's answers; closing concerns one process."""
    script.say(200, {"embedding": [1, 2]})
    client.embed(b"parent")

    for _ in range(2):
        if (child := os.fork()) == 0:
            client.embed(b"child")
            client.close()
            os._exit(0)
        assert os.waitpid(child, 0) == (child, 0)
        client.embed(b"parent")

    parent, first, again, second, at_last = script.ports
    assert parent == again == at_last
    assert len({parent, first, second}) == 3


def test_broken_file_among_many(script: Script, client: Client) -> None:
    """try_embed returns the refusal in its place; embed raises it with the index."""
    failure = {"index": 1, "type": "InvalidImage", "message": "unreadable"}
    script.say(200, {"embeddings": [[1, 2], None], "errors": [failure]})

    good, bad = client.try_embed([b"a", b"b"])
    assert np.array_equal(good, [1, 2])
    assert isinstance(bad, BadRequest)
    assert (str(bad), bad.type) == ("unreadable", "InvalidImage")
    with pytest.raises(BadRequest, match="image 1: unreadable"):
        client.embed([b"a", b"b"])


def test_images_are_named_by_their_place_in_the_call(script: Script, client: Client) -> None:
    """Not by their place in one of its requests, whoever refuses them."""
    limits = {"body_bytes": 9_999, "reply_bytes": 9_999, "images": 2}
    script.page = {"limits": limits, "image": {"channels": 1, "height": 4, "width": 4}}
    good, other = np.zeros((4, 4), np.uint8), np.zeros((5, 5), np.uint8)
    script.say(200, pack(np.zeros((2, 2), np.float32)))
    script.say(400, error(400, message="wrong size"))

    with pytest.raises(BadRequest, match=r"^image 2: wrong size"):
        client.embed([good, good, other])
    with pytest.raises(BadRequest, match=r"^images 0 to 1: wrong size"):
        client.reconstruct([other, other, good])
    with pytest.raises(BadRequest, match=r"^wrong size"):
        client.embed(other)


def test_arrays_travel_as_arrays(script: Script, client: Client) -> None:
    """Arrays are sent and answered as arrays, without JSON."""
    images = np.arange(32, dtype=np.uint8).reshape(2, 1, 4, 4)
    script.say(200, pack(np.ones((2, 2), np.float32)))
    script.say(200, pack(images))

    assert client.embed(images).tolist() == [[1, 1], [1, 1]]
    assert np.array_equal(client.decode([[0.5, 1], [2, 3]]), images)
    sent = unpack(script.requests[1][2])
    assert sent.dtype == np.float32
    assert sent.tolist() == [[0.5, 1], [2, 3]]


def test_refused_rows_of_an_array_are_named(script: Script, client: Client) -> None:
    """The header names the refused rows; NaN in the answer could go unnoticed."""
    script.say(200, pack(np.zeros((2, 2))), X_Failed_Indices="0,1")

    with pytest.raises(BadRequest, match="rows 0,1"):
        client.decode([[np.nan, 0], [0, np.inf]])


def test_a_grid_with_failures_is_refused(script: Script, client: Client) -> None:
    """A black cell could go unnoticed too, and so could an array that is refused as a whole."""
    script.say(200, b"PNG", X_Failed_Indices="1")
    script.say(400, error(400, "InvalidEmbedding", "1 of 1 entries failed; entry 0: too large"))

    with pytest.raises(BadRequest, match="rows 1"):
        client.decode_png([[0, 0], [np.nan, 0]])
    with pytest.raises(BadRequest, match="entry 0: too large"):
        client.decode_png([[np.nan, 0]])


def test_a_request_that_is_too_large_is_cut_in_halves(script: Script, client: Client) -> None:
    """A service without a gateway doesn't tell how large its images are."""
    script.say(413, error(413, "PayloadTooLarge"))
    for rows in ([[0, 0], [1, 1]], [[2, 2], [3, 3]]):
        script.say(200, {"embeddings": rows, "errors": []})

    assert client.embed([b"a", b"b", b"c", b"d"])[:, 0].tolist() == [0, 1, 2, 3]
    assert [len(json.loads(body)["images"]) for _, _, body in script.requests] == [4, 2, 2]


def test_reconstruction_is_complete(script: Script, client: Client) -> None:
    """It has the picture, the mse and the anomaly score."""
    anomaly = {"percentile": 97.3, "outlier": False}
    picture = base64.b64encode(b"PNG").decode()
    script.say(200, {"reconstruction": picture, "mse": 0.02, "anomaly": anomaly})

    answer = client.reconstruct(b"file")

    assert (answer.png, answer.mse) == (b"PNG", 0.02)
    assert (answer.percentile, answer.outlier) == (97.3, False)
    assert answer.seen is None


def test_scores(script: Script, client: Client) -> None:
    """Embeddings and scores come in one request, which asks for no pictures."""
    anomaly = {"percentile": 97.3125, "outlier": True, "outside": True}
    script.say(
        200,
        {
            "embeddings": [[1, 2], None],
            "mse": [0.02, None],
            "anomaly": [anomaly, None],
            "errors": [{"index": 1, "type": "InvalidImage", "message": "no"}],
        },
    )

    score, refusal = client.score_each([b"file", b"broken"])

    assert isinstance(score, Score)
    assert score.embedding.tolist() == [1, 2]
    assert (score.mse, score.percentile) == (0.02, 97.3125)
    assert score.outlier
    assert score.outside
    assert isinstance(refusal, BadRequest)
    assert script.requests[-1][1]["X-Pictures"] == "false"


def test_what_the_model_saw(script: Script, client: Client) -> None:
    """It is asked for with a header, and comes back as a picture, or nothing for a refusal."""
    remembered, seen = (base64.b64encode(name).decode() for name in (b"remembered", b"seen"))
    anomaly = {"percentile": 97.3, "outlier": False}
    script.say(
        200,
        {
            "reconstructions": [remembered, None],
            "mse": [0.02, None],
            "anomaly": [anomaly, None],
            "seen": [seen, None],
            "errors": [{"index": 1, "type": "InvalidImage", "message": "no"}],
        },
    )

    answer, refusal = client.reconstruct_each([b"file", b"broken"], seen=True)

    assert isinstance(answer, Reconstruction)
    assert (answer.png, answer.seen) == (b"remembered", b"seen")
    assert isinstance(refusal, BadRequest)
    assert script.requests[-1][1]["X-Seen"] == "true"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, BadRequest),
        (401, Unauthorized),
        (404, BadRequest),
        (413, BadRequest),
        (500, ServerError),
    ],
)
def test_final_answers_are_not_retried(
    script: Script, client: Client, status: int, expected: type[PinholeError]
) -> None:
    """Sending the same request again would change nothing."""
    script.say(status, error(status))

    with pytest.raises(expected, match="why"):
        client.embed(b"x")
    assert len(script.requests) == 1


@pytest.mark.parametrize("status", [429, 503, 0])
def test_passing_trouble_is_retried(script: Script, client: Client, status: int) -> None:
    """Busy twice, or disconnected twice, then well: the caller doesn't notice."""
    script.say(status, error(status), Retry_After="0")
    script.say(status, error(status), Retry_After="0")
    script.say(200, {"embedding": [1, 2]})

    assert client.embed(b"x").tolist() == [1, 2]
    assert len(script.requests) == 3


def test_lasting_trouble_is_named(script: Script, client: Client) -> None:
    """Busy to the end is Busy; no server at all is Unavailable."""
    script.say(503, error(503, message="queue full"), Retry_After="0")
    with pytest.raises(Busy, match="queue full"):
        client.embed(b"x")
    assert len(script.requests) == 5

    with (
        Client("http://127.0.0.1:9") as nobody,
        pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"),
    ):
        nobody.embed(b"x")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"status": "Healthy"}'])
def test_foreign_answers_are_not_embeddings(script: Script, client: Client, body: bytes) -> None:
    """A 200 from something else at that address is an error, not a KeyError."""
    script.say(200, body)

    with pytest.raises(ServerError, match="not that of a pinhole service"):
        client.health()


def test_time_out_is_not_retried(script: Script) -> None:
    """What timed out may still be running; asking again would double the load."""
    script.say(-1)
    with Client(script.url, timeout_s=0.3) as hasty, pytest.raises(Unavailable, match="Timeout"):
        hasty.embed(b"x")

    assert len(script.requests) == 1


def test_long_pauses_are_cut_short(script: Script, client: Client) -> None:
    """A Retry-After of an hour is not obeyed."""
    script.say(503, error(503), Retry_After="3600")
    script.say(200, {"embedding": [1, 2]})
    started = time.monotonic()

    client.embed(b"x")

    assert time.monotonic() - started < 30


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"code": 502}'])
def test_foreign_error_pages_are_survived(script: Script, client: Client, body: bytes) -> None:
    """A proxy's own error has another form; the status is shown."""
    script.say(502, body)

    with pytest.raises(ServerError, match="HTTP 502"):
        client.embed(b"x")


def test_health_measures_an_embedding(script: Script, client: Client) -> None:
    """Digest, version and precision come with the embedding of one pixel."""
    script.say(
        200, {"embedding": [0, 0, 0]}, X_Model_Digest="abc", X_Model_Version="2", X_Precision="fp32"
    )

    health = client.health()

    assert (health.digest, health.version, health.precision) == ("abc", "2", "fp32")
    assert health.embedding_width == 3
    assert 0 < health.latency_ms < 2_000
