"""The handlers as TorchServe calls them, with TorchServe's own context."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ts.context import Context, RequestProcessor
from ts.utils.util import list_classes_from_module

from serve.bundle import ENDPOINTS, Bundle
from serve.errors import EngineError
from serve.handlers import decode, embed, reconstruct
from serve.handlers import torchserve as adapter
from serve.handlers.embed import EmbedHandler
from serve.handlers.multipart import keeping_parts
from serve.handlers.torchserve import Worker
from serve.service import Service

from .conftest import FakeEngine, png


def context_of(bundle: Bundle, headers: Sequence[dict[str, str]]) -> Context:
    """A TorchServe context for one batch."""
    choice = {"runtime": "onnxruntime", "device": "cpu", "precision": "fp32"}
    config = {"handler": {"bundle": str(bundle.folder), **choice}}
    context = Context("embed", "/", {}, 1, None, "0.12.0", model_yaml_config=config)
    context.request_processor = [RequestProcessor({"url_path": "", **each}) for each in headers]
    context.request_ids = {index: f"id-{index}" for index in range(len(headers))}
    return context


def statuses(context: Context, count: int) -> list[int]:
    """The status of each reply."""
    return [context.get_response_status(index)[0] for index in range(count)]


def test_bad_image_fails_alone(small_bundle: Bundle, service: Service) -> None:
    """One broken image gets its own 400; its neighbours keep their own embeddings."""
    context = context_of(small_bundle, [{"content-type": "image/png"}] * 3)
    batch = [{"body": bytearray(png(10))}, {"body": b"not an image"}, {"data": png(20)}]

    bodies = Worker(service, "embed").answer(batch, context)

    assert statuses(context, 3) == [200, 400, 200]
    assert json.loads(bodies[0]) == {"embedding": [10.0, 10.0]}
    assert json.loads(bodies[1])["type"] == "InvalidImage"
    assert json.loads(bodies[2]) == {"embedding": [20.0, 20.0]}


def test_every_reply_names_the_model(small_bundle: Bundle, service: Service) -> None:
    """Digest, version and precision, on errors too; header names match in any case."""
    context = context_of(small_bundle, [{"CONTENT-TYPE": "image/png"}, {"Content-type": "a/b"}])

    Worker(service, "embed").answer([{"body": png(1)}, {"body": b""}], context)

    assert statuses(context, 2) == [200, 415]
    for index in range(2):
        headers = context.get_response_headers(index)
        assert headers["X-Model-Digest"] == small_bundle.manifest.digest
        assert headers["X-Model-Version"] == "1.0"
        assert headers["X-Precision"] == "fp32"
        assert headers["content-type"] == "application/json"


def test_path_and_parts_make_the_message(small_bundle: Bundle) -> None:
    """/predictions carries url_path, /v2 doesn't; a form's files are taken, its texts are not."""
    form = {"content-type": "multipart/form-data; boundary=x"}
    context = context_of(small_bundle, [form, {}, {}])
    context.request_processor[2] = RequestProcessor({})

    def retrieve(batch: list[dict[str, Any]]) -> Any:
        return None, [{p["name"]: p["value"] for p in each["parameters"]} for each in batch], {}

    part = {"name": "images", "contentType": "image/png"}
    text = {"name": "note", "contentType": "", "value": b"hello"}
    body = {"name": "body", "contentType": "image/png", "value": bytearray(b"one")}
    whole = {"name": "body", "contentType": "Multipart/Form-Data", "value": b"no boundary"}
    named = {**part, "name": "data", "value": b"a"}  # a field may be called like a raw body
    sent = [[named, text, whole, {**part, "value": "b"}], [body], [body]]
    _, rows, _ = keeping_parts(retrieve)([{"parameters": each} for each in sent])
    several, one, oip = (adapter.to_message(row, context, i) for i, row in enumerate(rows))

    assert (several.body, several.parts) == (b"", (b"a", b"b"))
    assert (one.body, one.parts, one.oip) == (b"one", (), False)
    assert oip.oip


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

    bodies = Worker(service, "embed").answer(batch, context)

    assert statuses(context, 3) == [200, 500, 200]
    assert json.loads(bodies[2]) == {"embedding": [20.0, 20.0]}
    assert "id-1" in json.loads(bodies[1])["message"]
    assert "secret" not in bodies[1].decode()
    assert "request id-1 failed" in caplog.text


def test_reply_over_the_limit_is_refused(
    small_bundle: Bundle, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TorchServe would kill the worker; the caller gets a 413 with the limit."""
    monkeypatch.setattr(adapter, "MAX_REPLY_BYTES", 20)
    context = context_of(small_bundle, [{"content-type": "image/png"}])

    (body,) = Worker(service, "embed").answer([{"body": png(10)}], context)

    assert statuses(context, 1) == [413]
    assert "the limit is 20" in json.loads(body)["message"]


@pytest.mark.parametrize("module", [decode, embed, reconstruct])
def test_handler_files_hold_one_class(module: object) -> None:
    """TorchServe takes the only class of a handler file, and refuses a file with two."""
    assert len(list_classes_from_module(module)) == 1
    assert module.__name__.rpartition(".")[2] in ENDPOINTS


@pytest.mark.parametrize(("given", "taken"), [(3, 3), (0, 0), (None, 0)])
def test_worker_takes_the_gpu_it_is_given(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, given: int | None, taken: int
) -> None:
    """TorchServe spreads workers over GPUs, and gives None where there are none."""
    asked = []

    def refuse(*arguments: Any) -> None:
        asked.append(arguments[4])
        raise EngineError("seen enough")

    monkeypatch.setattr(adapter, "open_engine", refuse)
    context = context_of(small_bundle, [])
    context.system_properties["gpu_id"] = given

    with pytest.raises(EngineError):
        EmbedHandler().initialize(context)

    assert asked == [taken]


def test_worker_proves_itself_first(small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real engine on a real bundle initialises; one with wrong answers never becomes ready."""
    handler = EmbedHandler()
    handler.initialize(context_of(small_bundle, []))

    monkeypatch.setattr(adapter, "open_engine", lambda *_: FakeEngine())
    with pytest.raises(EngineError, match="fake is wrong"):
        handler.initialize(context_of(small_bundle, []))
