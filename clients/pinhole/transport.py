"""Requests to one service, sent again where that is safe and useful.

Every call of the contract is idempotent, so any of them may be sent again. It helps

- where the connection failed, before the answer or within it;
- after 429 and 503, which mean busy, once the pause in Retry-After is over;
- after a worker died, perhaps of another request: once, lest this one kill them all.

Any other answer is final. So is a time-out: what was given up on may still be running over there,
and asking again would double the load. The pauses grow, are capped, and are jittered.

urllib3's own Retry does less: it can't see a body that breaks off, nor what a 500 says.
"""

import random
import time
from dataclasses import dataclass

import requests
import urllib3
from requests.auth import AuthBase
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from pinhole.deadline import TimedAdapter
from pinhole.errors import BadRequest, Busy, PinholeError, ServerError, Unauthorized, Unavailable

RETRIES = 4
PAUSE_S = 0.2  # before the second try; doubled for each further one
JITTER_S = 0.2  # at random on top, so that callers refused together don't return together
LONGEST_PAUSE_S = 5.0
CONNECTIONS = 32  # kept open, for as many threads

BUSY = (429, 503)
TIMEOUTS = (TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError)


class BearerKey(AuthBase):
    """An API key; as a bare header, requests would replace it by what a .netrc says."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign a request."""
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


@dataclass(frozen=True)
class Failure:
    """A request that brought no 200.

    Attributes:
        error: what the caller will see, unless another try helps.
        final: none will.
        worker_died: perhaps of this request.
        pause_s: how long the service asks to be left alone.
    """

    error: PinholeError
    final: bool
    worker_died: bool = False
    pause_s: float = 0.0


class Transport:
    """A service's address and the connections kept to it; threads may share them.

    Args:
        url: of the service.
        api_key: sent as a bearer token, if there is one.
        timeout_s: longest wait for a connection, and for each answer as a whole.

    Raises:
        ValueError: that is no web address.
    """

    def __init__(self, url: str, api_key: str | None, timeout_s: float) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"a service's URL starts with http:// or https://; got {url}")
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.auth = BearerKey(api_key) if api_key else None
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, TimedAdapter(pool_connections=1, pool_maxsize=CONNECTIONS))

    def close(self) -> None:
        """Close the kept connections."""
        self._session.close()

    def post(self, path: str, body: bytes, content_type: str, accept: str) -> requests.Response:
        """POST a body; the answer is a 200.

        Raises:
            PinholeError: as pinhole.errors says.
        """
        headers = {"Content-Type": content_type, "Accept": accept}
        return self._send("POST", path, headers, body)

    def get(self, path: str) -> requests.Response:
        """GET a page; the answer is a 200.

        Raises:
            PinholeError: as pinhole.errors says.
        """
        return self._send("GET", path, {"Accept": "application/json"})

    def _send(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None = None
    ) -> requests.Response:
        """Send a request until the answer is a 200, or final, or for the last time."""
        retry, worker_died = 0, False
        while True:
            outcome = self._exchange(method, path, headers, body)
            if isinstance(outcome, requests.Response):
                return outcome
            final = outcome.final or (outcome.worker_died and worker_died)
            if final or retry == RETRIES:
                raise outcome.error
            wait(retry, outcome.pause_s)
            retry, worker_died = retry + 1, worker_died or outcome.worker_died

    def _exchange(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> requests.Response | Failure:
        """Send a request once, and take in the whole answer."""
        try:
            reply = self._session.request(
                method,
                self._url + path,
                data=body,
                headers=headers,
                timeout=self._timeout_s,
                allow_redirects=False,  # a POST would be redirected as a GET
            )
        except requests.RequestException as error:
            return Failure(self._no_answer(error), final=not is_broken(error))
        return reply if reply.status_code == 200 else to_failure(reply)

    def _no_answer(self, error: requests.RequestException) -> Unavailable:
        """The exception that a failed connection becomes."""
        why = f": {type(error).__name__}"
        if ran_out_of_time(error):
            why = f" within {self._timeout_s:g} s: Timeout"
        fault = Unavailable(f"no answer from {self._url}{why}")
        fault.__cause__ = error
        return fault


def is_broken(error: requests.RequestException) -> bool:
    """Whether a connection failed, as one does in passing: not for lack of time, nor of trust."""
    if isinstance(error, requests.exceptions.SSLError) or ran_out_of_time(error):
        return False
    return isinstance(error, (requests.ConnectionError, requests.exceptions.ChunkedEncodingError))


def ran_out_of_time(error: BaseException) -> bool:
    """Whether an exception, or one of those it wraps, is a time-out: requests hides some."""
    return isinstance(error, TIMEOUTS) or any(
        ran_out_of_time(cause) for cause in error.args if isinstance(cause, BaseException)
    )


def to_failure(reply: requests.Response) -> Failure:
    """What an answer other than 200 means."""
    worker_died = reply.status_code in (500, 507) and b"worker died" in reply.content.lower()
    final = reply.status_code not in BUSY and not worker_died
    return Failure(refusal(reply), final, worker_died, asked_pause_s(reply))


def refusal(reply: requests.Response) -> PinholeError:
    """The exception that an answer other than 200 becomes."""
    try:
        fields = reply.json()
        message, kind = str(fields["message"]), str(fields["type"])
    except (requests.JSONDecodeError, KeyError, TypeError):
        message, kind = f"HTTP {reply.status_code}", "Unknown"
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
    """Seconds until the moment that Retry-After names; 0 where it names none."""
    try:
        return Retry().parse_retry_after(reply.headers.get("Retry-After", "0"))
    except InvalidHeader:
        return 0.0


def wait(retry: int, asked_s: float) -> None:
    """Pause before another try: as long as was asked for, or longer each time, within reason."""
    pause_s = min(LONGEST_PAUSE_S, max(asked_s, PAUSE_S * 2**retry))
    time.sleep(pause_s + random.uniform(0, JITTER_S))  # noqa: S311 - no secret
