"""One process of a service on Granian: an event loop, threads, and the model they serve."""

import asyncio
import logging
import threading
import time
from collections.abc import Mapping, Sequence

import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

from serve.endpoints import ENDPOINTS
from serve.granian.app import App
from serve.granian.dispatcher import Dispatcher, Task
from serve.granian.files import find_files
from serve.granian.model import Opened
from serve.granian.team import Team
from serve.isolation import reply_isolating_faults
from serve.journal import Journal
from serve.launcher.private import Pages
from serve.launcher.readiness import Readiness
from serve.launcher.settings import BATCH_SIZE, GPU_BATCH_SIZE
from serve.launcher.watching import DRAIN_S
from serve.metrics import Metrics
from serve.service import Report
from serve.wire.replies import Reply

logger = logging.getLogger(__name__)

POLL_S = 0.02
END_S = 10.0  # for the event loop, and for each thread, to end
STUCK_S = 120.0  # a batch that takes longer will never end; the largest take seconds
BACKLOG = 1_024  # connections that wait to be accepted


class Process:
    """Granian in this process, and what it serves.

    Attributes:
        opened: what is served now. A batch ends with the service that it began with.
        readiness: whether this process is ready; its canaries change with the bundle.
        has_ended: after ``stop``, whether all threads have ended.

    Args:
        opened: to begin with.
        team: all processes of the service.
        number: of this process.
        stopping: set once the service is stopping, and so is no longer ready.
    """

    def __init__(self, opened: Opened, team: Team, number: int, stopping: threading.Event) -> None:
        settings = team.settings_of(number)
        self._team, self._stopping = team, stopping
        self.opened = opened
        # The threads of this process can't die apart from it, so all workers are always there.
        self.readiness = Readiness(
            opened.served.canaries,
            settings,
            lambda _: settings.worker_count,
            lambda ready: team.tell(number, ready),
        )
        token = settings.canary_token
        self._metrics = {name: Metrics(name) for name in ENDPOINTS}
        self._journals = {
            name: Journal(name, self._metrics[name].count, token) for name in ENDPOINTS
        }
        self._telling = threading.Lock()
        self._dispatcher = Dispatcher(
            settings.worker_count,
            settings.batch_size or (GPU_BATCH_SIZE if opened.on_gpu else BATCH_SIZE),
            self._answer,
            self._tell,
        )
        self._app = App(
            self._dispatcher,
            self._tell,
            lambda: self.opened.service,
            Pages(self.reason, self.pages),
            find_files(),
            stopping.is_set,
            team.other_tokens(number),
            settings.cors,
        )
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

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def take(self, opened: Opened) -> None:
        """Serve another bundle from now on."""
        with self.readiness.changing:
            self.opened, self.readiness.canaries = opened, opened.served.canaries

    def reason(self) -> str | None:
        """Why the service isn't ready, as all its processes have to be; None if it is."""
        if self._stopping.is_set():
            return "stopping"
        reason = self._team.reason()
        return reason and (self.readiness.reason or reason)

    def pages(self) -> Mapping[str, bytes]:
        """See serve.launcher.metadata.pages."""
        return self.opened.served.pages

    def fault(self) -> str | None:
        """Why the process can't go on; None while it can."""
        seconds, tasks = self._dispatcher.slowest()
        if seconds > STUCK_S:
            names = ",".join(task.request_id for task in tasks)
            return f"{tasks[0].endpoint} has been stuck for {seconds:.0f} s: request {names}"
        if not self._dispatcher.is_whole():
            return "a thread that answers requests has ended"
        return None if self._thread.is_alive() else "Granian has ended"

    def stop(self) -> None:
        """Answer what has come in, then end Granian and the threads."""
        deadline = time.monotonic() + DRAIN_S
        while self._app.open and self.fault() is None and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if self._app.open:
            logger.warning("requests may be lost: not all were answered within %.0f s", DRAIN_S)
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._server.stop)
            self._thread.join(END_S)
        self.has_ended = self._dispatcher.close(END_S) and not self._thread.is_alive()
        if not self.has_ended:
            fault = self.fault() or "a request is still being answered"
            logger.critical("%s; ending at once", fault)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._server.serve())

    def _answer(self, endpoint: str, tasks: Sequence[Task], report: Report) -> list[Reply]:
        """One reply for each message of a batch, with the headers of the model that made it."""
        service = self.opened.service
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
            )
