"""Between TorchServe's batches and the service: what the three handlers share.

A batch is a list of rows; a raw body is the row's value under ``body`` or ``data``. Header names
come as the caller wrote them. The path a request came by shows in one header alone: TorchServe adds
``url_path`` to what was sent to /predictions, and nothing to what was sent to /v2.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serve.activity import Activity
from serve.bundle import load_bundle
from serve.engine import check_golden, open_engine
from serve.errors import InternalError, PayloadTooLarge, ServeError
from serve.handlers.upstream import PARTS, answer_early, around_batches, be_quiet, read_ahead
from serve.journal import Count, Journal, Report
from serve.limits import MAX_REPLY_BYTES
from serve.service import Operation, Service
from serve.wire.replies import Reply, error_reply
from serve.wire.requests import CANARY_HEADER, MULTIPART, Message

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]

# The most that others in a batch wait for: some 300 images as an array, or 100 embeddings in JSON.
LIGHT_BYTES = {"embed": 256 << 10, "reconstruct": 256 << 10, "decode": 4 << 10}


class Worker:
    """One endpoint in one of TorchServe's worker processes.

    Args:
        service: what answers.
        endpoint: of serve.bundle.ENDPOINTS.
        count: adds a batch to the metrics, where anybody reads them.
        canary_token: by which the launcher's requests are known.
    """

    def __init__(
        self,
        service: Service,
        endpoint: str,
        count: Count | None = None,
        canary_token: str | None = None,
    ) -> None:
        self._service, self._operation = service, service.operation(endpoint)
        self._light_bytes = LIGHT_BYTES[endpoint]
        self._journal = Journal(endpoint, count)
        self._canary_token = canary_token
        self._untold: list[tuple[Report, Sequence[Reply], Sequence[str]]] = []

    def answer(self, batch: Sequence[Row], context: Any) -> list[bytes]:
        """Answer one dynamic batch: a body for each row, in order; the rest into ``context``.

        Light requests don't wait for heavy ones that happen to share their batch.
        """
        light, heavy = dict[int, Message](), dict[int, Message]()
        for index, row in enumerate(batch):
            message = to_message(row, context, index)
            (light if message.size <= self._light_bytes else heavy)[index] = message
        bodies = self._answer(light, context)
        if light and heavy:
            answer_early(context, bodies)
        bodies |= self._answer(heavy, context)
        return [bodies[index] for index in range(len(batch))]

    def _answer(self, placed: Mapping[int, Message], context: Any) -> dict[int, bytes]:
        """Answer some messages of a batch, by their places in it."""
        if not placed:
            return {}
        messages = list(placed.values())
        request_ids = [context.get_request_id(index) for index in placed]
        report = Report()
        replies = answer_whatever_happens(self._operation, messages, request_ids, report)
        replies = list(map(within_limit, replies, (message.oip for message in messages)))
        for index, reply in zip(placed, replies, strict=True):
            set_head(context, index, reply, self._service.headers)
        if not self._is_routine(messages, replies):
            self._untold.append((report, replies, request_ids))
        return {index: reply.body for index, reply in zip(placed, replies, strict=True)}

    def tell(self) -> None:
        """Count and log what was just answered: nobody should wait for that."""
        for answered in self._untold:
            self._journal.tell(*answered)
        self._untold.clear()

    def _is_routine(self, messages: Sequence[Message], replies: Sequence[Reply]) -> bool:
        """Whether this was nothing but the launcher's twice a second, and went well."""
        return self._canary_token is not None and all(
            message.headers.get(CANARY_HEADER.lower()) == self._canary_token and reply.status == 200
            for message, reply in zip(messages, replies, strict=True)
        )


def open_worker(context: Any, endpoint: str) -> Worker:
    """Open the bundle that model-config.yaml names, and prove the engine on its golden images.

    Raises:
        ServeError: the bundle is damaged, the engine can't start or answers wrongly. The worker
            then never becomes ready.
    """
    config = context.model_yaml_config["handler"]
    log_to_stderr()
    read_ahead()
    if "activity" in config:
        be_quiet()
    folder = Path(context.system_properties["model_dir"]) / config["bundle"]
    try:
        bundle = load_bundle(folder)
        engine = open_engine(
            bundle,
            config["runtime"],
            config["device"],
            config["precision"],
            context.system_properties.get("gpu_id") or 0,  # None on a host without GPUs
            config.get("threads"),
        )
        check_golden(engine, bundle)
    except ServeError as error:
        logger.error("worker can't start: %s", error)  # TorchServe itself says only "died"
        raise
    logger.info(
        "worker ready: %s on %s in %s, model %s version %s digest %s",
        context.model_name,
        engine.name,
        engine.precision,
        bundle.manifest.name,
        bundle.manifest.version,
        bundle.manifest.digest[:12],
    )
    service = Service(bundle, engine)
    if "activity" not in config:  # in a stock TorchServe
        worker = Worker(service, endpoint)
        around_batches(begin=lambda: None, end=worker.tell)
        return worker
    from serve.metrics import Metrics

    activity = Activity(Path(config["activity"]))
    worker = Worker(service, endpoint, Metrics(endpoint).count, config["canary_token"])

    def end() -> None:
        worker.tell()
        activity.end()

    around_batches(activity.begin, end)
    return worker


def log_to_stderr() -> None:
    """Send this package's log lines to stderr: TorchServe logs what workers write there."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    package = logging.getLogger("serve")
    package.handlers, package.propagate = [handler], False
    package.setLevel(logging.INFO)


def set_head(context: Any, index: int, reply: Reply, headers: Mapping[str, str]) -> None:
    """Put a reply's status and headers where TorchServe looks for them."""
    context.set_response_status(reply.status, reply.phrase, index)
    context.set_response_content_type(index, reply.content_type)
    for name, value in {**headers, **reply.headers}.items():
        context.set_response_header(index, name, value)


def within_limit(reply: Reply, oip: bool) -> Reply:
    """The reply, or a 413 in its place: TorchServe kills a worker whose reply is too large."""
    if len(reply.body) <= MAX_REPLY_BYTES:
        return reply
    return error_reply(
        PayloadTooLarge(
            f"the reply would have {len(reply.body):,} bytes; the limit is {MAX_REPLY_BYTES:,}: "
            "ask for fewer images"
        ),
        oip,
    )


def to_message(row: Row, context: Any, index: int) -> Message:
    """One row of a batch as one HTTP message."""
    sent = context.get_all_request_header(index)
    headers = {name.lower(): value for name, value in sent.items() if isinstance(value, str)}
    oip = "url_path" not in headers
    message = Message(row.get("body", row.get("data", b"")), headers, oip=oip)
    if message.content_type == MULTIPART:
        return Message(b"", headers, row.get(PARTS, ()), oip)
    return message


def answer_whatever_happens(
    operation: Operation,
    messages: Sequence[Message],
    request_ids: Sequence[str],
    report: Report,
) -> list[Reply]:
    """Answer a batch; where that fails unforeseen, find the guilty message by answering each alone.

    TorchServe would otherwise fail every request of the batch with a 503. The guilty one gets a 500
    that names its log line.
    """
    try:
        return operation(messages, report)
    except Exception:  # the one place: no request may harm its neighbours
        if len(messages) == 1:
            logger.exception("request %s failed", request_ids[0])
            report.bad[InternalError.__name__] += 1
            message = f"unexpected error; report request id {request_ids[0]}"
            return [error_reply(InternalError(message), messages[0].oip)]
        logger.exception("a batch of %d failed; answering its requests alone", len(messages))
        report.images, report.outliers = 0, 0  # they come again
        report.bad.clear()
    return [
        answer_whatever_happens(operation, [message], [request_id], report)[0]
        for message, request_id in zip(messages, request_ids, strict=True)
    ]
