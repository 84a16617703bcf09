"""What pictures a model takes, as a service's metadata and a job's results have it."""

from contextlib import closing, suppress
from typing import Any

from pinhole.answers import expecting_contract
from pinhole.errors import PinholeError
from pinhole.explorer.server import upstreams
from pinhole.transport import Transport
from serve.bundle.manifest import FRAMINGS, POLARITIES, ImageSpec


def find_image_spec(url: str, api_key: str, timeout_s: float, digest: str) -> ImageSpec | None:
    """Ask a service for the pictures that its model takes.

    Args:
        url: the service's. A gateway serves the metadata; without a gateway, the private port of a
            launcher on this host does.
        api_key: of the service, or "".
        timeout_s: longest wait for an answer.
        digest: of the model; the service may be given another model at any time.

    Returns:
        None where nobody says it.
    """
    for place in upstreams(url):
        with (
            closing(Transport(place, api_key, timeout_s)) as transport,
            suppress(PinholeError),
            expecting_contract(),
        ):
            page = transport.get("/v2/models/embed").json()
            if page["digest"] == digest:
                return to_image_spec(page["image"])
    return None


def to_image_spec(fields: Any) -> ImageSpec | None:
    """The field ``image`` of a service's metadata, or of a result's.

    Returns:
        None where a part of it is missing, or has a value that this version doesn't know.
    """
    try:
        spec = ImageSpec(**fields)
    except TypeError:
        return None
    return spec if spec.polarity in POLARITIES and spec.framing in FRAMINGS else None
