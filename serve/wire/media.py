"""Media types, and which of them a caller wants."""

import math
from collections.abc import Mapping
from functools import lru_cache

JSON = "application/json"
PNG = "image/png"
NPY = "application/x-npy"
MULTIPART = "multipart/form-data"


@lru_cache(maxsize=64)  # callers send the same few headers again and again
def best_reply_type(accept: str) -> str:
    """The media type of JSON, PNG and NPY that an Accept header ranks highest; JSON if none."""
    ranks = accept_ranks(accept)
    return max((JSON, PNG, NPY), key=lambda media_type: rank_of(media_type, ranks))


def accept_ranks(header: str) -> dict[str, float]:
    """``image/png;q=0.5, */*`` → ``{"image/png": 0.5, "*/*": 1.0}`` (RFC 9110, 12.5.1)."""
    ranks = {}
    for choice in header.split(","):
        media_type, *parameters = (part.strip().lower() for part in choice.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            rank = float(quality)
        except ValueError:
            rank = 0.0
        ranks[media_type] = min(1.0, max(0.0, rank)) if math.isfinite(rank) else 0.0
    return ranks


def rank_of(media_type: str, ranks: Mapping[str, float]) -> float:
    """A media type's own rank, else that of its wildcard, else 0."""
    wildcards = (media_type, media_type.partition("/")[0] + "/*", "*/*")
    return next((ranks[wildcard] for wildcard in wildcards if wildcard in ranks), 0.0)
