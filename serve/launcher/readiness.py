"""Whether a service is ready: its workers are up, and its answers are right.

TorchServe's own /ping stays healthy while every worker is dead. Here, ready means that every
worker is up (each has passed the golden check as it started), and that one canary for each endpoint
has just come back with the golden answer. On Granian, the workers are the process's own threads.

``python -m serve.launcher.readiness`` asks a running service, for health checks.
"""

import argparse
import os
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from serve.bundle.errors import RequestError
from serve.canary import Canary
from serve.errors import LaunchError
from serve.launcher.settings import Settings
from serve.wire.message import CANARY_HEADER

TIMEOUT_S = 5.0  # for each answer of a check
# Where several processes share a port (serve/granian/followers.py), each sends canaries to itself.
# If another process gets one, it answers 421 and closes the connection. The canary is then sent on
# new connections until one of them leads to the right process; that connection is kept.
MISDIRECTED = 421
ANOTHER_PROCESS = Retry(
    total=None,
    connect=0,
    read=False,  # 0 would raise a timeout as a ConnectionError
    redirect=0,
    status=200,
    status_forcelist=[MISDIRECTED],
    allowed_methods=None,
    raise_on_status=False,
    respect_retry_after_header=False,
)


class Readiness:
    """Whether a service is ready: ``check`` asks it, and the attributes keep the result.

    Attributes:
        reason: None when ready, else why not.
        working: every endpoint has a ready worker, and no answer was wrong. A service that is
            merely busy is not ready, but it works.
        complete: every endpoint has all its workers.
        unanswered: the endpoints whose canary got no answer but a refusal, while all workers were
            there.
        been_ready: the service has been ready before.
        canaries: endpoint → canary.
        changing: a lock, held while the bundle changes, and with it the right answers.

    Args:
        canaries: endpoint → canary.
        settings: of the service.
        ready_workers: counts the ready workers of an endpoint. Raises LaunchError where the
            server doesn't say.
        company: is told after each check whether this process is ready; says why other processes
            of the service aren't.
    """

    def __init__(
        self,
        canaries: Mapping[str, Canary],
        settings: Settings,
        ready_workers: Callable[[str], int],
        company: Callable[[bool], str | None] = lambda is_ready: None,
    ) -> None:
        self.reason: str | None = "starting"
        self.working = self.complete = self.been_ready = False
        self.unanswered: frozenset[str] = frozenset()
        self.changing = threading.Lock()
        self.canaries = canaries
        self._settings, self._ready_workers = settings, ready_workers
        self._company = company
        self._session = loopback_session()
        self._session.mount("http://", HTTPAdapter(max_retries=ANOTHER_PROCESS))

    def check(self) -> bool:
        """Ask the service; True if it is ready."""
        with self.changing:
            self.working = self.complete = False
            self.unanswered = frozenset()
            try:
                fault = self._worker_fault() or self._canary_fault()
            except LaunchError as error:
                fault = str(error)
            elsewhere = self._company(fault is None)
            self.reason = fault or elsewhere
        self.been_ready |= self.reason is None
        return self.reason is None

    def _worker_fault(self) -> str | None:
        wanted = self._settings.worker_count
        ready = {endpoint: self._ready_workers(endpoint) for endpoint in self.canaries}
        self.working = all(ready.values())
        for endpoint, count in ready.items():
            if count < wanted:
                return f"{endpoint}: {count} of {wanted} workers ready"
        self.complete = True
        return None

    def _canary_fault(self) -> str | None:
        with ThreadPoolExecutor(len(self.canaries)) as pool:  # no endpoint waits for another
            results = dict(zip(self.canaries, pool.map(self._try, self.canaries), strict=True))
        faults = {endpoint: fault for endpoint, (fault, _) in results.items() if fault}
        wrong = {endpoint for endpoint, (_, is_wrong) in results.items() if is_wrong}
        self.unanswered = frozenset(faults) - wrong
        self.working &= not wrong
        return next((f"{endpoint}: {fault}" for endpoint, fault in faults.items()), None)

    def _try(self, endpoint: str) -> tuple[str | None, bool]:
        url = f"{self._settings.inference_url}/predictions/{endpoint}"
        token = self._settings.canary_token
        return try_canary(self._session, url, self.canaries[endpoint], token)


def loopback_session() -> requests.Session:
    """A session for addresses of this host: no proxy, whatever the environment says."""
    session = requests.Session()
    session.trust_env = False
    return session


def try_canary(
    session: requests.Session, url: str, canary: Canary, token: str
) -> tuple[str | None, bool]:
    """Send a canary, and compare the answer with the golden one.

    Returns:
        The fault (None if there is none), and whether the fault is a wrong answer, which is worse
        than no answer.
    """
    try:
        reply = send_canary(session, url, canary, token, TIMEOUT_S)
        if reply.status_code != 200:
            return f"the canary got HTTP {reply.status_code}", False
        if canary.is_golden(reply.content):
            return None, False
    except requests.Timeout:
        return f"the canary got no answer within {TIMEOUT_S:.0f} s", False
    except requests.RequestException as error:
        return f"the canary got no answer ({type(error).__name__})", False
    except (RequestError, ValueError, LookupError, TypeError):
        return "the canary's answer can't be read", True
    return "the canary's answer is wrong", True


def send_canary(
    session: requests.Session, url: str, canary: Canary, token: str, timeout_s: float
) -> requests.Response:
    """POST a canary. Raises requests.RequestException where no answer comes in time."""
    headers = {
        "Content-Type": canary.content_type,
        "Accept": canary.accept,
        "X-Polarity": "keep",  # a golden image stays as it is
        CANARY_HEADER: token,
    }
    return session.post(url, canary.body, headers=headers, timeout=timeout_s)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 if the service is ready."""
    parser = argparse.ArgumentParser(
        prog="python -m serve.launcher.readiness",
        description="Ask a service on this host whether it is ready; exit 1 and say why if not.",
        epilog="example: python -m serve.launcher.readiness --port 9080",
    )
    add_port(parser)
    port = parser.parse_args(sys.argv[1:] if arguments is None else arguments).port
    url = f"http://127.0.0.1:{Settings(port=port).private_port}/ready"
    try:
        reason = loopback_session().get(url, timeout=TIMEOUT_S).json()["reason"]
    except (requests.RequestException, ValueError, LookupError, TypeError):
        reason = f"no proper answer from {url}"
    print("ready" if reason is None else f"not ready: {reason}")
    return 0 if reason is None else 1


def add_port(parser: argparse.ArgumentParser) -> None:
    """Let ``parser`` take the port of a running service, by default what PINHOLE_PORT says."""
    set_port = os.environ.get("PINHOLE_PORT", "")
    default = int(set_port) if set_port.isdecimal() else Settings.port
    parser.add_argument(
        "--port", type=int, default=default, help="of the service (default: %(default)s)"
    )


if __name__ == "__main__":
    sys.exit(main())
