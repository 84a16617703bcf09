"""Requests to one service, sent again where that is safe and useful.

Every call of the contract is idempotent, so every request may be sent again. That helps

- when the connection failed, before the answer or within it;
- after 429 and 503, which mean busy, once the pause in Retry-After is over;
- after a worker died, perhaps of another request. Such a request is sent again only once: if it is
  what kills workers, it must not kill them all.

Any other answer is final. A time-out is final too: the service may still be working on the request
that the client gave up on, and sending it again would double the load. The pauses between retries
grow, are capped, and are jittered.

urllib3's own Retry does less: it can't see a body that breaks off, nor what a 500 says.
"""

import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

import requests
import urllib3
from requests.auth import AuthBase
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from pinhole.address import authorization, check_timeout, check_url, without_credentials
from pinhole.deadline import TimedAdapter
from pinhole.errors import BadRequest, Busy, PinholeError, ServerError, Unauthorized, Unavailable

RETRIES = 4
PAUSE_S = 0.2  # The pause before the first retry; it doubles with each further retry.
JITTER_S = 0.2  # The most that is added at random, so that callers refused together spread out.
LONGEST_PAUSE_S = 5.0
CONNECTIONS = 32  # Connections that are kept open: as many threads can share a client.

HOW_TO_START = "is the service running? python -m serve BUNDLE starts it on this host"

NO_HEADERS: Mapping[str, str] = {}
BUSY = (429, 503)
# What is wrong with a URL is a proxy's: the service's own has been checked.
OF_A_PROXY = (
    requests.exceptions.ProxyError,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
)
TIMEOUTS = (TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError)


class Authorization(AuthBase):
    """Sends the Authorization header.

    A header that is set directly would be replaced by requests if the user's .netrc has an entry
    for the host.
    """

    def __init__(self, value: str) -> None:
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the header to a request."""
        request.headers["Authorization"] = self._value
        return request


@dataclass(frozen=True)
class Failure:
    """The outcome of a request that wasn't answered with status 200.

    Attributes:
        error: raised, unless a retry succeeds.
        final: whether a retry is useless.
        worker_died: whether a worker of the service died, perhaps of this request.
        pause_s: the pause before a retry that the service asks for.
    """

    error: PinholeError
    final: bool
    worker_died: bool = False
    pause_s: float = 0.0


class Transport:
    """A service's address and the connections kept to it; threads and forks may share it.

    Args:
        url: the service's.
        api_key: sent as a bearer token, if there is one; else the URL's credentials are sent.
        timeout_s: longest wait for a connection, and for each answer as a whole.

    Attributes:
        url: the service's, without credentials.

    Raises:
        ValueError: the URL is no web address, or the key or the time-out can't be used.
    """

    def __init__(self, url: str, api_key: str | None, timeout_s: float) -> None:
        self.url = without_credentials(check_url(url)).rstrip("/")
        self._timeout_s = check_timeout(timeout_s)
        self._authorization = authorization(url, api_key)
        self._sessions = dict[int, requests.Session]()  # one for each process id

    def close(self) -> None:
        """Close the connections that this process has kept."""
        if session := self._sessions.pop(os.getpid(), None):
            session.close()

    def post(
        self,
        path: str,
        body: bytes,
        content_type: str,
        accept: str,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> requests.Response:
        """POST a body; returns the reply, whose status is 200.

        Args:
            path: of the service.
            body: of the request.
            content_type: of the body.
            accept: the media type of the reply.
            headers: further headers, such as X-Framing.

        Raises:
            PinholeError: as pinhole.errors says.
        """
        every = {"Content-Type": content_type, "Accept": accept, **headers}
        return self._send_with_retries("POST", path, every, body)

    def get(self, path: str) -> requests.Response:
        """GET a page; returns the reply, whose status is 200.

        Raises:
            PinholeError: as pinhole.errors says.
        """
        return self._send_with_retries("GET", path, {"Accept": "application/json"})

    def _session(self) -> requests.Session:
        """This process's own session: a connection that two processes use mixes their answers up.

        A forked child keeps its parent's session, and leaves it alone: to close it would take locks
        that another thread of the parent may have held during the fork.
        """
        process = os.getpid()
        if process not in self._sessions:
            self._sessions.setdefault(process, open_session(self._authorization))
        return self._sessions[process]

    def _send_with_retries(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None = None
    ) -> requests.Response:
        """Send a request until its status is 200, a failure is final, or no retry is left."""
        retry, worker_died = 0, False
        while True:
            outcome = self._send_once(method, path, headers, body)
            if isinstance(outcome, requests.Response):
                return outcome
            final = outcome.final or (outcome.worker_died and worker_died)
            if final or retry == RETRIES:
                raise outcome.error
            wait(retry, outcome.pause_s)
            retry, worker_died = retry + 1, worker_died or outcome.worker_died

    def _send_once(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> requests.Response | Failure:
        """Send a request, and read the whole answer."""
        try:
            reply = self._session().request(
                method,
                self.url + path,
                data=body,
                headers=headers,
                timeout=self._timeout_s,
                allow_redirects=False,  # requests would repeat a redirected POST as a GET.
            )
        except requests.RequestException as error:
            return Failure(self._unavailable(error), final=not is_broken(error))
        return reply if reply.status_code == 200 else to_failure(reply)

    def _unavailable(self, error: requests.RequestException) -> Unavailable:
        """The exception that a failed connection becomes."""
        why = f": {type(error).__name__}"
        if ran_out_of_time(error):
            why = f" within {self._timeout_s:g} s: Timeout; a larger timeout_s waits longer"
        elif isinstance(error, OF_A_PROXY):
            why += ", of the proxy that the environment names; NO_PROXY=HOST goes around it"
        elif is_broken(error):
            why += f"; {HOW_TO_START}"
        fault = Unavailable(f"no answer from {self.url}{why}")
        fault.__cause__ = error
        return fault


def open_session(authorization: str) -> requests.Session:
    """A session whose answers have a deadline, and whose requests carry an Authorization header."""
    session = requests.Session()
    session.auth = Authorization(authorization) if authorization else None
    for scheme in ("http://", "https://"):
        session.mount(scheme, TimedAdapter(pool_connections=1, pool_maxsize=CONNECTIONS))
    return session


def is_broken(error: requests.RequestException) -> bool:
    """Whether a connection broke; False for a time-out and for an untrusted certificate."""
    if isinstance(error, requests.exceptions.SSLError) or ran_out_of_time(error):
        return False
    return isinstance(error, (requests.ConnectionError, requests.exceptions.ChunkedEncodingError))


def ran_out_of_time(error: BaseException) -> bool:
    """Whether an exception, or an exception that it wraps, is a time-out: requests wraps some."""
    return isinstance(error, TIMEOUTS) or any(
        ran_out_of_time(cause) for cause in error.args if isinstance(cause, BaseException)
    )


def to_failure(reply: requests.Response) -> Failure:
    """What an answer with another status than 200 means for retries."""
    worker_died = reply.status_code in (500, 507) and b"worker died" in reply.content.lower()
    final = reply.status_code not in BUSY and not worker_died
    return Failure(refusal(reply), final, worker_died, asked_pause_s(reply))


def refusal(reply: requests.Response) -> PinholeError:
    """The exception that an answer with another status than 200 becomes."""
    try:
        fields = reply.json()
        message, kind = str(fields["message"]), str(fields["type"])
    except (requests.JSONDecodeError, KeyError, TypeError):
        where = without_credentials(reply.url)
        message = f"HTTP {reply.status_code} from {where}, not in a pinhole service's words"
        kind = "Unknown"
    if reply.status_code == 401:
        return Unauthorized(message)
    if reply.status_code in BUSY:
        return Busy(message)
    if 400 <= reply.status_code < 500:
        return BadRequest(message, reply.status_code, kind)
    if place := reply.headers.get("Location"):
        message = f"{message}: the service has moved to {place}"
    return ServerError(message)


def asked_pause_s(reply: requests.Response) -> float:
    """Seconds until the moment that Retry-After names; 0 without a valid Retry-After."""
    try:
        return Retry().parse_retry_after(reply.headers.get("Retry-After", "0"))
    except InvalidHeader:
        return 0.0


def wait(retry: int, asked_s: float) -> None:
    """Pause before a retry: at least as long as asked, longer each time, within LONGEST_PAUSE_S."""
    pause_s = min(LONGEST_PAUSE_S, max(asked_s, PAUSE_S * 2**retry))
    time.sleep(pause_s + random.uniform(0, JITTER_S))  # noqa: S311 - no secret
