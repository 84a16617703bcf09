"""Which web pages of other origins may call: https://fetch.spec.whatwg.org/#http-cors-protocol.

A browser lets a page send what a form could send, and lets it send anything else, or read a reply,
only where the headers here allow it. Before such a request the browser asks, by OPTIONS: that is
the preflight. A page has to know a key itself, if there is one: no cookie or login opens anything.
"""

from collections.abc import Collection
from typing import Any

ANY = "*"
PREFLIGHT_S = 600  # for a browser to remember the answer to a preflight; without it, 5 s


def cors_headers(scope: Any, origins: Collection[str]) -> list[tuple[str, str]]:
    """The headers of any reply to a request.

    Args:
        scope: the request, as Granian hands it over.
        origins: such as ``https://site.example``, in lower case, or ANY; not empty.
    """
    headers = [("vary", "Origin")]  # a cache must not give one origin's reply to another
    origin = scope.headers.get("origin")
    if origin is None or (ANY not in origins and origin.lower() not in origins):
        return headers
    headers += [("access-control-allow-origin", origin), ("access-control-expose-headers", "*")]
    if scope.method == "OPTIONS":
        wanted = scope.headers.get("access-control-request-headers", "")
        headers += [
            ("access-control-allow-methods", "GET, HEAD, POST"),
            ("access-control-allow-headers", wanted),
            ("access-control-max-age", str(PREFLIGHT_S)),
        ]
    return headers
