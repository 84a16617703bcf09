"""A batch of requests becomes replies, in order, on an engine that shows crossed replies."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from serve.service import Report, Service
from serve.wire.message import Message
from serve.wire.npy import read_npy

from .conftest import array, b64, envelope, fields, file, png, shades

JSON, PNG, NPY = "application/json", "image/png", "application/x-npy"


def test_mixed_batch_gives_each_its_own(service: Service) -> None:
    """Singular, plural, an array and garbage in one batch: nobody gets a neighbour's answer."""
    images = np.stack([np.full((28, 28), shade, np.uint8) for shade in range(200)])

    one, many, broken, stack = service.embed(
        [
            file(png(10)),
            envelope("images", [b64(png(20)), b64(b"broken"), b64(png(30))]),
            file(b"garbage"),
            array(images),
        ]
    )

    assert fields(one) == {"embedding": [10.0, 10.0]}
    assert fields(many)["embeddings"] == [[20.0, 20.0], None, [30.0, 30.0]]
    assert [error["index"] for error in fields(many)["errors"]] == [1]
    assert fields(many)["errors"][0]["type"] == "InvalidImage"
    assert (broken.status, fields(broken)["type"]) == (400, "InvalidImage")
    assert [row[0] for row in fields(stack)["embeddings"]] == list(range(200))


def test_form_is_plural(service: Service) -> None:
    """Every file of a multipart form is one image; one that can't be read fails alone."""
    kind = {"content-type": "multipart/form-data; boundary=x"}

    reply, empty = service.embed(
        [Message(b"", kind, parts=(png(10), b"broken", png(20))), Message(b"", kind)]
    )

    assert fields(reply)["embeddings"] == [[10.0, 10.0], None, [20.0, 20.0]]
    assert [error["index"] for error in fields(reply)["errors"]] == [1]
    assert empty.status == 400
    assert "holds no file" in fields(empty)["message"]


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream", "", "IMAGE/X"])
def test_one_file_is_singular(service: Service, content_type: str) -> None:
    """One file gets one object in reply, whatever its Content-Type."""
    (reply,) = service.embed([file(png(9), content_type)])

    assert fields(reply) == {"embedding": [9.0, 9.0]}


def test_plural_is_about_the_form_not_the_count(service: Service) -> None:
    """A list of one is answered with a list of one; an empty list with an empty list."""
    one, none = service.embed([envelope("images", [b64(png(9))]), envelope("images", [])])

    assert fields(one) == {"embeddings": [[9.0, 9.0]], "errors": []}
    assert fields(none) == {"embeddings": [], "errors": []}


def test_outliers_are_listed_beside_pictures(service: Service) -> None:
    """An array of pictures has no place for scores: a header has the outliers' places."""
    images = np.zeros((3, 28, 28), np.uint8)
    images[1, :14] = 255

    (reply,) = service.reconstruct([array(images, accept="application/x-npy")])

    assert reply.headers["X-Outlier-Indices"] == "1"


def test_reconstruct_scores_the_image(service: Service) -> None:
    """The fake engine reconstructs one shade perfectly, and half-black half-white badly."""
    half = np.zeros((1, 28, 28), np.uint8)
    half[:, :14] = 255

    perfect, bad = service.reconstruct([file(png(51)), array(half)])

    assert fields(perfect)["mse"] == 0
    assert fields(perfect)["anomaly"] == {"percentile": 0.0, "outlier": False}
    assert (shades(base64.b64decode(fields(perfect)["reconstruction"])) == 51).all()
    assert fields(bad)["mse"] == [pytest.approx(0.25, abs=1e-3)]  # all 127.5: ± 0.5 everywhere
    assert fields(bad)["anomaly"] == [{"percentile": 100.0, "outlier": True}]


def test_decode_draws_each_embedding(service: Service) -> None:
    """Good and bad vectors side by side; only the bad ones fail."""
    rows = [[51, 0], [1], "x", [None, 2], [1e7, 0], [True, 1], [255, 0]]

    (reply,) = service.decode([envelope("embeddings", rows)])

    answer = fields(reply)
    assert (shades(base64.b64decode(answer["images"][0])) == 51).all()
    assert (shades(base64.b64decode(answer["images"][6])) == 255).all()
    assert answer["images"][1:6] == [None] * 5
    assert [error["index"] for error in answer["errors"]] == [1, 2, 3, 4, 5]
    assert {error["type"] for error in answer["errors"]} == {"InvalidEmbedding"}


def test_png_replies(service: Service) -> None:
    """One image is one picture; several are a grid, black where one failed."""
    wants = {"accept": "image/png"}
    rows = [b64(png(10)), b64(b"broken"), b64(png(30))]

    one, grid, broken = service.reconstruct(
        [file(png(10), **wants), envelope("images", rows, **wants), file(b"x", **wants)]
    )

    assert one.content_type == "image/png"
    assert (shades(one.body) == 10).all()
    assert shades(grid.body)[::28, ::28].tolist() == [[10, 0], [30, 0]]
    assert (broken.status, broken.content_type) == (400, "application/json")


def test_array_replies(service: Service) -> None:
    """In a reply of an array, a failed row is NaN or black, and its index is in a header."""
    wants = {"accept": "application/x-npy"}
    rows = [b64(png(10)), b64(b"broken")]

    (embedded,) = service.embed([envelope("images", rows, **wants)])
    (rebuilt,) = service.reconstruct([envelope("images", rows, **wants)])
    (decoded,) = service.decode([array(np.array([[51, 0]], np.float32), **wants)])

    assert np.array_equal(read_npy(embedded.body), [[10, 10], [np.nan] * 2], equal_nan=True)
    broken = "6 bytes can't be read as an image"
    assert embedded.headers["X-Failed-Indices"] == "1"
    assert embedded.headers["X-First-Failure"].startswith(broken)
    assert read_npy(rebuilt.body)[:, 0, 0, 0].tolist() == [10, 0]
    scores = {"X-Mse": "0.0,nan", "X-Percentile": "0.0,nan"}
    assert rebuilt.headers == {**scores, **embedded.headers}
    assert (read_npy(decoded.body) == 51).all()
    assert read_npy(decoded.body).dtype == np.uint8


def test_reports_show_drift(service: Service) -> None:
    """A report has percentiles and where embeddings lie in the held-out range, of a sample."""
    report = Report()

    service.embed([file(png(51)), file(b"broken")], report)
    service.embed([array(np.full((4_000, 1, 28, 28), 255, np.uint8))], report)
    service.reconstruct([array(np.full((4_000, 1, 28, 28), 51, np.uint8))], report)

    assert report.positions == [pytest.approx([0.2, 0.2]), *[[1, 1]] * 4]  # of 0 to 255
    assert len(report.percentiles) == 8
    report.forget()
    assert report.positions == report.percentiles == []


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", JSON),
        ("nonsense", JSON),
        ("image/png;q=nonsense", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("text/html, image/gif, *; q=.2, */*; q=.2", JSON),  # Java's own
        ("text/html, image/png;q=0.9, */*;q=0.1", PNG),
        ("image/png;q=0.5, application/json", JSON),
        ("image/*", PNG),
        ("*/*, application/json;q=0", PNG),
        ("image/png;q=0, application/json;q=0, */*;q=0.1", NPY),
        ("text/html", None),
        ("application/json;q=0", None),
        ("*/*;q=0", None),
    ],
)
def test_accept_decides_the_reply(service: Service, accept: str, expected: str | None) -> None:
    """The reply has the form that Accept ranks highest, or is a 406 if Accept allows none."""
    (reply,) = service.reconstruct([file(png(10), accept=accept)])

    if expected:
        assert (reply.status, reply.content_type) == (200, expected)
    else:
        assert (reply.status, fields(reply)["type"]) == (406, "NotAcceptable")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [("image/png, application/x-npy;q=0.5", NPY), ("image/*, application/json;q=0.1", JSON)],
)
def test_embeddings_are_no_picture(service: Service, accept: str, expected: str) -> None:
    """What ranks highest among numbers is given; where only pictures are wanted, it is a 406."""
    (reply,) = service.embed([file(png(10), accept=accept)])
    (refusal,) = service.embed([file(png(10), accept="image/*")])

    assert (reply.status, reply.content_type) == (200, expected)
    assert (refusal.status, fields(refusal)["code"]) == (406, 406)
    assert "application/json, application/x-npy" in fields(refusal)["message"]


@pytest.mark.parametrize("size", [(28, 28), (56, 42)])
def test_what_was_seen(service: Service, size: tuple[int, int]) -> None:
    """X-Seen shows the image that the model was given, in each form of reply."""
    wants = {"x-seen": "true", "x-framing": "pad", "x-polarity": "keep"}
    sent = np.full((size[1], size[0]), 51, np.uint8)
    sent[0, 0] = 50
    page = io.BytesIO()
    Image.fromarray(sent).save(page, "PNG")
    picture, arrays = ({**wants, "accept": kind} for kind in ("image/png", "application/x-npy"))

    told, many, strip, both, pairs = service.reconstruct(
        [
            file(page.getvalue(), **wants),
            envelope("images", [b64(page.getvalue()), b64(b"broken")], **wants),
            file(page.getvalue(), **picture),
            file(page.getvalue(), **arrays),
            envelope("images", [b64(page.getvalue()), b64(b"broken")], **picture),
        ]
    )

    seen = shades(base64.b64decode(fields(told)["seen"]))
    remembered = shades(base64.b64decode(fields(told)["reconstruction"]))
    assert seen.shape == (28, 28)
    assert abs(seen.mean() - 51) < 1
    assert fields(many)["seen"] == [fields(told)["seen"], None]
    assert shades(strip.body).shape == (224, 3 * 224)
    assert np.array_equal(shades(strip.body)[::8, 224::8], np.hstack((seen, remembered)))
    assert abs(shades(strip.body)[:, :224].mean() - 51) < 1
    assert np.array_equal(np.load(io.BytesIO(both.body))[0, :, 0], np.stack((seen, remembered)))
    assert np.array_equal(shades(pairs.body)[:28, :56], np.hstack((seen, remembered)))
    assert not shades(pairs.body)[:28, 56:].any()


def test_scores_without_pictures(service: Service) -> None:
    """With X-Pictures: false, one request tells what embed and reconstruct tell in two."""
    bare = {"x-pictures": "false"}
    files, half = [b64(png(51)), b64(b"broken")], np.zeros((1, 28, 28), np.uint8)
    half[:, :14] = 255

    one, many, pixels = service.reconstruct(
        [file(png(51), **bare), envelope("images", files, **bare), array(half, **bare)]
    )

    (embedded,) = service.embed([file(png(51))])
    told = fields(one)
    assert told.keys() == {"embedding", "mse", "anomaly"}
    assert told["embedding"] == fields(embedded)["embedding"]
    assert told["mse"] == 0
    assert told["anomaly"] == {"percentile": 0.0, "outlier": False, "outside": False}
    assert fields(many).keys() == {"embeddings", "mse", "anomaly", "errors"}
    assert fields(many)["embeddings"] == [told["embedding"], None]
    assert [error["index"] for error in fields(many)["errors"]] == [1]
    assert fields(pixels)["anomaly"][0]["outlier"]
