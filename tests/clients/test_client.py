"""The client's calls, against a local server that answers whatever a test tells it to."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from pinhole import BadRequest, Client, Reconstruction, Score, ServerError
from pinhole.tensors import pack, unpack

from .script import Script, error


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


def test_another_model_within_a_call(script: Script, client: Client) -> None:
    """Embeddings by two models don't go into one array; the next call has the new one's."""
    limits = {"body_bytes": 9_999, "reply_bytes": 9_999, "images": 1}
    script.page = {"limits": limits, "image": {"channels": 1, "height": 4, "width": 4}}
    for digest in ("a", "b", "b", "b"):
        script.say(200, {"embedding": [1.0, 2.0]}, X_Model_Digest=digest)

    with pytest.raises(ServerError, match="two models, or precisions, have answered this call"):
        client.embed([b"one", b"two"])
    assert client.embed([b"one", b"two"]).shape == (2, 2)


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

    with pytest.raises(BadRequest, match="rows 4, 5; row 4: the service doesn't say why"):
        client.decode(np.zeros((6, 2)))


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
    """Headers name the refused rows, and why; NaN in the answer could go unnoticed."""
    script.say(200, pack(np.zeros((3, 2))), X_Failed_Indices="1,2", X_First_Failure="not finite")

    with pytest.raises(BadRequest, match=r"refused rows 1, 2; row 1: not finite$"):
        client.decode([[0, 0], [np.nan, 0], [0, np.inf]])


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


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"status": "Healthy"}'])
def test_foreign_answers_are_not_embeddings(script: Script, client: Client, body: bytes) -> None:
    """A 200 from something else at that address is an error, not a KeyError."""
    script.say(200, body)

    with pytest.raises(ServerError, match="not that of a pinhole service"):
        client.health()


def test_health_measures_an_embedding(script: Script, client: Client) -> None:
    """Digest, version and precision come with the embedding of one pixel."""
    script.say(
        200, {"embedding": [0, 0, 0]}, X_Model_Digest="abc", X_Model_Version="2", X_Precision="fp32"
    )

    health = client.health()

    assert (health.digest, health.version, health.precision) == ("abc", "2", "fp32")
    assert health.embedding_width == 3
    assert 0 < health.latency_ms < 2_000
