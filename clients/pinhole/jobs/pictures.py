"""What pictures a model takes, as a service's metadata and a job's results have it."""

from contextlib import closing, suppress
from typing import Any

from pinhole.address import upstreams
from pinhole.answers import expecting_contract
from pinhole.errors import PinholeError
from pinhole.transport import Transport
from serve.bundle.manifest import FRAMINGS, POLARITIES, ImageSpec


def find_image_spec(url: str, api_key: str, timeout_s: float, digest: str) -> ImageSpec | None:
    """The pictures that the model of a service takes; None where nobody says it. See find_page."""
    page = find_page(url, api_key, timeout_s, "/v2/models/embed", digest)
    return to_image_spec(page.get("image"))


def find_page(url: str, api_key: str, timeout_s: float, path: str, digest: str) -> dict[str, Any]:
    """Ask a service for a page about its model.

    Args:
        url: the service's. A gateway serves the metadata; without a gateway, the private port of a
            launcher on this host does.
        api_key: of the service, or "".
        timeout_s: longest wait for an answer.
        path: of the page.
        digest: of the model; the service may be given another model at any time.

    Returns:
        The page, or {} where nobody has it.
    """
    for place in upstreams(url):
        with (
            closing(Transport(place, api_key, timeout_s)) as transport,
            suppress(PinholeError),
            expecting_contract(),
        ):
            page: dict[str, Any] = transport.get(path).json()
            if page["digest"] == digest:
                return page
    return {}


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
