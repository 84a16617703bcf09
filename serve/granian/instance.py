"""One running service on Granian: started, watched, drained, stopped."""

import asyncio
import logging
import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

from serve.bundle.manifest import Bundle
from serve.endpoints import ENDPOINTS
from serve.granian.app import App
from serve.granian.dispatcher import Dispatcher, Task
from serve.granian.files import find_files
from serve.granian.model import Model
from serve.isolation import reply_isolating_faults
from serve.journal import Journal
from serve.launcher.metrics import read_metrics
from serve.launcher.private import Answers, PrivateServer
from serve.launcher.settings import BATCH_SIZE, Settings
from serve.launcher.swapping import Swapper
from serve.metrics import Metrics
from serve.service import Report
from serve.wire.replies import Reply

logger = logging.getLogger(__name__)

DRAIN_S = 20.0  # for every request that has come in to be answered
POLL_S = 0.02
END_S = 10.0  # for the event loop, and for each thread, to end
STUCK_S = 120.0  # a batch that takes longer will never end; the largest take seconds
GPU_BATCH_SIZE = 256  # a GPU takes hardly longer for 256 images than for one
BACKLOG = 1_024  # connections that wait to be accepted


class Instance:
    """Granian in this process, the private port beside it, and what they serve.

    See serve.launcher.watching.Instance.

    Args:
        bundle: to serve.
        settings: of the service.
        home: an empty folder that outlives the instance.
        stopping: set once the service is stopping, and so is no longer ready.

    Raises:
        ServeError: the bundle isn't fit to be served, or a port is taken.
    """

    def __init__(
        self, bundle: Bundle, settings: Settings, home: Path, stopping: threading.Event
    ) -> None:
        self._settings, self._home, self._stopping = settings, home, stopping
        self._model = Model(bundle, settings, home)
        self.readiness = self._model.readiness
        token = settings.canary_token
        self._metrics = {name: Metrics(name) for name in ENDPOINTS}
        self._journals = {
            name: Journal(name, self._metrics[name].count, token) for name in ENDPOINTS
        }
        self._telling = threading.Lock()
        self._dispatcher = Dispatcher(
            settings.worker_count,
            settings.batch_size or (GPU_BATCH_SIZE if self._model.on_gpu else BATCH_SIZE),
            self._answer,
            self._tell,
        )
        answers = Answers(
            reason=self._reason,
            pages=lambda: self._model.served.pages,
            metrics=self._metrics_page,
            swap=Swapper(self._model, home, stopping).swap,
        )
        self._app = App(
            self._dispatcher,
            self._tell,
            lambda: self._model.service,
            answers,
            find_files(),
            stopping.is_set,
        )
        self._private = PrivateServer(settings.private_host, settings.private_port, answers)
        self._server = Server(
            self._app,
            address=settings.host,
            port=settings.port,
            interface=Interfaces.RSGI,
            http=HTTPModes.http1,
            websockets=False,
            backlog=BACKLOG,
            log_enabled=False,
        )
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="event-loop", daemon=True)
        self._thread.start()

    def fault(self) -> str | None:
        """Why the service can't go on; None while it can."""
        seconds, tasks = self._dispatcher.slowest()
        if seconds > STUCK_S:
            names = ",".join(task.request_id for task in tasks)
            return f"{tasks[0].endpoint} has been stuck for {seconds:.0f} s: request {names}"
        if not self._dispatcher.is_whole():
            return "a thread that answers requests has ended"
        return None if self._thread.is_alive() else "Granian has ended"

    def stop(self) -> None:
        """Answer what has come in, then end Granian."""
        deadline = time.monotonic() + DRAIN_S
        while self._app.open and self.fault() is None and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if self._app.open:
            logger.warning("requests may be lost: not all were answered within %.0f s", DRAIN_S)
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._server.stop)
            self._thread.join(END_S)
        self._private.stop()
        if not self._dispatcher.close(END_S) or self._thread.is_alive():
            # Python can't end a thread that is stuck in a library, and wouldn't end with it.
            logger.critical(
                "%s; ending at once", self.fault() or "a request is still being answered"
            )
            shutil.rmtree(self._home, ignore_errors=True)
            os._exit(1)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._server.serve())

    def _reason(self) -> str | None:
        return "stopping" if self._stopping.is_set() else self.readiness.reason

    def _metrics_page(self) -> bytes:
        manifest = self._model.served.bundle.manifest
        return read_metrics(None, manifest, self._settings, self._reason() is None)

    def _answer(self, endpoint: str, tasks: Sequence[Task], report: Report) -> list[Reply]:
        """One reply for each message of a batch, with the headers of the model that made it."""
        service = self._model.service
        messages, ids = [task.message for task in tasks], [task.request_id for task in tasks]
        replies = reply_isolating_faults(service.operation(endpoint), messages, ids, report)
        for reply in replies:
            reply.headers.update(service.headers)
        return replies

    def _tell(
        self, endpoint: str, tasks: Sequence[Task], replies: Sequence[Reply], report: Report
    ) -> None:
        """Count and log a batch whose replies are out."""
        with self._telling:
            self._metrics[endpoint].count_waits(task.waited_s for task in tasks)
            self._journals[endpoint].tell(
                report,
                [task.message for task in tasks],
                replies,
                [task.request_id for task in tasks],
                [task.trace for task in tasks if task.trace],
            )
