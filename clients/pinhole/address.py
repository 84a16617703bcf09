"""A service's URL, its API key and the time-out: checked at the door, and shown without secrets."""

import base64
import re
from urllib.parse import unquote, urlsplit, urlunsplit

# The longest time-out that a socket takes: 2**31 milliseconds, about 24 days.
LONGEST_TIMEOUT_S = 2_147_483

PRIVATE_OFFSET = 3  # The launcher's private port is the inference port plus 3 (docs/operations.md).


def check_url(url: str) -> str:
    """Return a service's URL as it is.

    Raises:
        ValueError: it is no web address, or has a query; the message shows no credentials.
    """
    if not is_service(url):
        shown = re.sub(r"[?#].*", "", re.sub(r".*@", "***@", url))
        raise ValueError(
            "a service's URL is http://HOST:PORT or https://HOST, perhaps with a path, and has no "
            f"query; got {shown}"
        )
    return url


def is_service(url: str) -> bool:
    """Whether a URL has the scheme and the host of a web address, and neither query nor space."""
    try:
        parts = urlsplit(url)
        port = parts.port  # urlsplit itself doesn't look at the port.
    except ValueError:
        return False
    named = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    return named and not re.search(r"[\s?#]", url)


def without_credentials(url: str) -> str:
    """A URL or a pattern of URLs that may be shown: without ``user:password@``."""
    return re.sub(r"(?<=://)[^/?#]*@", "", url)


def upstreams(url: str) -> list[str]:
    """The URLs to try in order: the service's, and for a service on this host its private port."""
    parts = urlsplit(url.rstrip("/"))
    if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        return [url.rstrip("/")]
    port = (parts.port or 80) + PRIVATE_OFFSET
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return [url.rstrip("/"), urlunsplit(("http", f"{host}:{port}", parts.path, "", ""))]


def authorization(url: str, api_key: str | None) -> str:
    """The Authorization header: the API key, or else the URL's user and password; "" for neither.

    Raises:
        ValueError: the key can't be sent; the message doesn't show it.
    """
    if api_key:
        return f"Bearer {check_key(api_key)}"
    parts = urlsplit(url)
    if parts.username is None:
        return ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def check_key(key: str) -> str:
    """Return an API key as it is.

    Raises:
        ValueError: an HTTP header can't carry it; the message doesn't show it.
    """
    if not re.fullmatch(r"[!-~]*", key):
        raise ValueError("an API key is ASCII without spaces and line breaks; this one has others")
    return key


def check_timeout(timeout_s: float) -> float:
    """Return a time-out as it is.

    Raises:
        ValueError: it isn't above 0, or longer than a socket takes.
    """
    if not 0 < timeout_s <= LONGEST_TIMEOUT_S:
        raise ValueError(
            f"a time-out is above 0 and at most {LONGEST_TIMEOUT_S:,} seconds; got {timeout_s:g}"
        )
    return timeout_s
