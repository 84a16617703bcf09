"""Media types, and which of them a caller wants."""

import math
import re
from collections.abc import Mapping
from functools import lru_cache

from serve.errors import NotAcceptable

JSON = "application/json"
PNG = "image/png"
NPY = "application/x-npy"
MULTIPART = "multipart/form-data"
# What a request to /v1/embeddings is marked with on its way to a handler, which learns of no path:
# by the gateway, and by the second server. The caller's own Content-Type doesn't matter there.
OPENAI = "application/x-openai+json"
MEDIA_RANGE = re.compile(r"[^\s/]+/[^\s/]+")


@lru_cache(maxsize=64)  # callers send the same few headers again and again
def best_reply_type(accept: str, offers: tuple[str, ...]) -> str:
    """The media type on offer that an Accept header ranks highest.

    It is the first on offer where the header is missing, names no media type, or ranks several
    alike.

    Raises:
        NotAcceptable: the header allows nothing on offer.
    """
    ranks = accept_ranks(accept)
    best = max(offers, key=lambda media_type: rank_of(media_type, ranks))
    if ranks and rank_of(best, ranks) == 0:
        raise NotAcceptable(f"Accept allows none of the replies here: {', '.join(offers)}")
    return best


def accept_ranks(header: str) -> dict[str, float]:
    """``image/png;q=0.5, */*`` → ``{"image/png": 0.5, "*/*": 1.0}`` (RFC 9110, 12.5.1).

    A choice that can't be read is left out.
    """
    ranks = {}
    for choice in header.split(","):
        media_type, *parameters = (part.strip().lower() for part in choice.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            rank = float(quality)
        except ValueError:
            continue
        if MEDIA_RANGE.fullmatch(media_type) and math.isfinite(rank):
            ranks[media_type] = min(1.0, max(0.0, rank))
    return ranks


def rank_of(media_type: str, ranks: Mapping[str, float]) -> float:
    """A media type's own rank, else that of its wildcard, else 0."""
    wildcards = (media_type, media_type.partition("/")[0] + "/*", "*/*")
    return next((ranks[wildcard] for wildcard in wildcards if wildcard in ranks), 0.0)
