"""The handlers as TorchServe calls them, with TorchServe's own context."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from ts.context import Context, RequestProcessor
from ts.protocol import otf_message_handler
from ts.utils.util import list_classes_from_module

from serve.bundle.engine.opening import open_engine
from serve.bundle.errors import EngineError
from serve.bundle.images import write_png
from serve.bundle.manifest import Bundle
from serve.journal import Journal
from serve.service import Report, Service
from serve.torchserve import handler as handler_file
from serve.torchserve import startup
from serve.torchserve.handler import Handler
from serve.torchserve.worker import Worker
from serve.wire import replies
from serve.wire.message import Message
from serve.wire.npy import write_npy
from train.dataset import Dataset

from .conftest import FakeEngine, png


def context_of(bundle: Bundle, headers: Sequence[dict[str, str]]) -> Context:
    """A TorchServe context for one batch."""
    choice = {"runtime": "onnxruntime", "device": "cpu", "precision": "fp32"}
    config = {"handler": {"endpoint": "embed", "bundle": str(bundle.folder), **choice}}
    context = Context("embed", "/", {}, 1, None, "0.12.0", model_yaml_config=config)
    context.request_processor = [RequestProcessor({"url_path": "", **each}) for each in headers]
    context.request_ids = {index: f"id-{index}" for index in range(len(headers))}
    return context


def worker(service: Service, endpoint: str = "embed") -> Worker:
    """A worker whose batches nobody counts."""
    return Worker(service, endpoint, Journal(endpoint))


def statuses(context: Context, count: int) -> list[int]:
    """The status of each reply."""
    return [context.get_response_status(index)[0] for index in range(count)]


def test_bad_image_fails_alone(small_bundle: Bundle, service: Service) -> None:
    """One broken image gets its own 400; its neighbours keep their own embeddings."""
    context = context_of(small_bundle, [{"content-type": "image/png"}] * 3)
    batch = [{"body": png(10)}, {"body": b"not an image"}, {"data": png(20)}]

    bodies = worker(service).handle_batch(batch, context)

    assert statuses(context, 3) == [200, 400, 200]
    assert json.loads(bodies[0]) == {"embedding": [10.0, 10.0]}
    assert json.loads(bodies[1])["type"] == "InvalidImage"
    assert json.loads(bodies[2]) == {"embedding": [20.0, 20.0]}


@pytest.mark.parametrize("endpoint", ["embed", "reconstruct"])
def test_mixed_batch_answers_each_as_if_alone(
    shipped_bundle: Bundle, digits: Dataset, endpoint: str
) -> None:
    """Each request of a mixed batch gets, byte for byte, the reply that it gets alone."""
    service = Service(shipped_bundle, open_engine(shipped_bundle, device="cpu"))
    images = digits.train_images[:502].numpy()
    oip = {"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 28, 28]}]}
    oip["inputs"][0]["data"] = images[501].ravel().tolist()
    rows = [
        ({"url_path": "", "Content-Type": "image/png"}, write_png(images[0])),
        ({"url_path": "", "Content-Type": "application/x-npy"}, write_npy(images[:500])),
        ({"url_path": "", "Content-Type": "image/png"}, b"garbage"),
        (
            {"url_path": "", "Content-Type": "image/png", "Accept": "image/png, */*;q=0.1"},
            write_png(images[500]),
        ),
        ({}, json.dumps(oip).encode()),
    ]

    def answer(sent: Sequence[tuple[dict[str, str], bytes]]) -> list[tuple[int, bytes]]:
        context = context_of(shipped_bundle, [])
        context.request_processor = [RequestProcessor(headers) for headers, _ in sent]
        context.request_ids = {index: f"id-{index}" for index in range(len(sent))}
        bodies = worker(service, endpoint).handle_batch(
            [{"body": body} for _, body in sent], context
        )
        return list(zip(statuses(context, len(sent)), bodies, strict=True))

    together = answer(rows)

    assert [status for status, _ in together] == [200, 200, 400, 200, 200]
    assert together == [answer([row])[0] for row in rows]


def test_heavy_requests_are_run_one_by_one(
    small_bundle: Bundle, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Light requests of a batch run together and heavy ones alone; replies keep their places."""
    ran: list[int] = []
    embed = FakeEngine.embed

    def counting(self: FakeEngine, images: np.ndarray) -> np.ndarray:
        ran.append(len(images))
        return embed(self, images)

    monkeypatch.setattr(FakeEngine, "embed", counting)
    npy, file = {"content-type": "application/x-npy"}, {"content-type": "image/png"}
    context = context_of(small_bundle, [npy, file, npy, file, file])
    bodies = [images_of(400, 7), b"garbage", images_of(500, 8), png(10), png(20)]

    replies = worker(service).handle_batch([{"body": body} for body in bodies], context)

    assert ran == [2, 400, 500]
    assert statuses(context, 5) == [200, 400, 200, 200, 200]
    assert json.loads(replies[0])["embeddings"] == [[7.0, 7.0]] * 400
    assert json.loads(replies[2])["embeddings"] == [[8.0, 8.0]] * 500
    assert [json.loads(body)["embedding"] for body in replies[3:]] == [[10.0] * 2, [20.0] * 2]


def images_of(count: int, value: int) -> bytes:
    """``count`` images of one grey, as an array."""
    return write_npy(np.full((count, 1, 28, 28), value, np.uint8))


def test_every_reply_names_the_model(small_bundle: Bundle, service: Service) -> None:
    """Every reply, an error too, names the model; request headers may be in any case."""
    context = context_of(small_bundle, [{"CONTENT-TYPE": "image/png"}, {"Content-type": "a/b"}])

    worker(service).handle_batch([{"body": png(1)}, {"body": b""}], context)

    assert statuses(context, 2) == [200, 415]
    for index in range(2):
        headers = context.get_response_headers(index)
        assert headers["X-Model-Digest"] == small_bundle.manifest.digest
        assert headers["X-Model-Version"] == "1.0"
        assert headers["X-Precision"] == "fp32"
        assert headers["content-type"] == "application/json"


def test_failures_are_told_and_successes_sampled(
    small_bundle: Bundle, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Every failed batch is logged, a successful batch now and then, and a canary never."""
    worker = Worker(service, "embed", Journal("embed", None, "mine"))

    def answer(body: bytes, **headers: str) -> None:
        worker.handle_batch([{"body": body}], context_of(small_bundle, [{**headers}]))
        worker.tell()

    with caplog.at_level(logging.INFO, "serve.journal"):
        answer(png(1), **{"X-Canary": "mine"})
        assert not caplog.messages
        answer(png(1))
        answer(png(1), **{"X-Canary": "guessed"})
        answer(b"garbage", **{"X-Canary": "mine"})

    first, failed = caplog.messages
    assert "batch endpoint=embed requests=1 images=1 bad=none" in first
    assert first.endswith("untold=0 replies=id-0:200")
    assert "images=0 bad=InvalidImage:1 " in failed
    assert failed.endswith("untold=1 replies=id-0:400")


def test_phases_add_up(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inference counts in its own phase only, and the phases together take at most the whole."""
    monkeypatch.setattr(FakeEngine, "embed", slow(FakeEngine.embed))
    report = Report()
    message = Message(images_of(200, 7), {"content-type": "application/x-npy"})

    started = time.perf_counter()
    service.reconstruct([message], report)
    whole = time.perf_counter() - started

    assert report.seconds["infer"] >= 0.05
    assert 0 < report.seconds["read"] < whole - report.seconds["infer"]
    assert 0 < report.seconds["write"] < whole - report.seconds["infer"]
    assert sum(report.seconds.values()) <= whole


def slow(embed: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """The same function, 50 ms slower."""

    def late(*arguments: Any) -> np.ndarray:
        time.sleep(0.05)
        return embed(*arguments)

    return late


def test_unexpected_error_hits_the_guilty_only(
    small_bundle: Bundle,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A fault of ours answers 500 with a request id; the rest of the batch is answered."""
    healthy = FakeEngine.embed

    def fragile(self: FakeEngine, images: np.ndarray) -> np.ndarray:
        if (images == 66).any():
            raise RuntimeError("a secret about the inside")
        return healthy(self, images)

    monkeypatch.setattr(FakeEngine, "embed", fragile)
    context = context_of(small_bundle, [{"content-type": "image/png"}] * 3)
    batch = [{"body": png(10)}, {"body": png(66)}, {"body": png(20)}]

    bodies = worker(service).handle_batch(batch, context)

    assert statuses(context, 3) == [200, 500, 200]
    assert json.loads(bodies[2]) == {"embedding": [20.0, 20.0]}
    assert "id-1" in json.loads(bodies[1])["message"]
    assert "secret" not in bodies[1].decode()
    assert "request id-1 failed" in caplog.text


def test_reply_over_the_limit_is_refused(
    small_bundle: Bundle, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply over the limit becomes a 413, since TorchServe would kill the worker for it."""
    monkeypatch.setattr(replies, "MAX_REPLY_BYTES", 20)
    context = context_of(small_bundle, [{"content-type": "image/png"}])

    (body,) = worker(service).handle_batch([{"body": png(10)}], context)

    assert statuses(context, 1) == [413]
    assert "the limit is 20" in json.loads(body)["message"]


def test_handler_file_holds_one_class() -> None:
    """TorchServe takes the only class of a handler file, and refuses a file with two."""
    assert list_classes_from_module(handler_file) == [Handler]


@pytest.fixture
def in_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process look like TorchServe's worker, and undo its changes to TorchServe."""
    monkeypatch.setattr("__main__.retrieve_msg", otf_message_handler.retrieve_msg, raising=False)
    for name in ("_retrieve_buffer", "_retrieve_inference_msg"):
        monkeypatch.setattr(otf_message_handler, name, getattr(otf_message_handler, name))


@pytest.mark.usefixtures("in_worker")
@pytest.mark.parametrize(("given", "taken"), [(3, 3), (0, 0), (None, 0)])
def test_worker_takes_the_gpu_it_is_given(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, given: int | None, taken: int
) -> None:
    """A worker opens its engine on the GPU that TorchServe gives it, or on 0 for None."""
    asked = []

    def refuse(*arguments: Any) -> None:
        asked.append(arguments[4])
        raise EngineError("seen enough")

    monkeypatch.setattr(startup, "open_engine", refuse)
    context = context_of(small_bundle, [])
    context.system_properties["gpu_id"] = given

    with pytest.raises(EngineError):
        Handler().initialize(context)

    assert asked == [taken]


@pytest.mark.usefixtures("in_worker")
def test_worker_proves_itself_first(small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker with a real engine initialises, and a worker with wrong answers doesn't."""
    handler = Handler()
    handler.initialize(context_of(small_bundle, []))

    monkeypatch.setattr(startup, "open_engine", lambda *_: FakeEngine())
    with pytest.raises(EngineError, match="fake is wrong"):
        handler.initialize(context_of(small_bundle, []))
