"""What pictures a model takes, as its service says."""

from dataclasses import asdict
from urllib.parse import urlsplit

import pytest

from pinhole.jobs.pictures import find_image_spec
from serve.bundle.manifest import ImageSpec

from ..script import Script, serve

SPEC = ImageSpec(1, 28, 28, "auto", "ink")
PAGE = {"digest": "digest", "image": asdict(SPEC)}
OLD = {"channels": 1, "height": 28, "width": 28, "polarity": "auto"}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that nobody listens on is tried again without a pause."""
    monkeypatch.setattr("pinhole.transport.PAUSE_S", 0)
    monkeypatch.setattr("pinhole.transport.JITTER_S", 0)


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (PAGE, SPEC),
        ({**PAGE, "digest": "other"}, None),
        ({**PAGE, "image": OLD}, None),
        ({**PAGE, "image": {**OLD, "framing": "guess"}}, None),
        ({"name": "embed"}, None),
        (None, None),
    ],
)
def test_the_metadata_say_it(page: object, expected: ImageSpec | None) -> None:
    """Unless they are another model's, of an older service, or not there."""
    with serve(Script(page=page)) as service:
        assert find_image_spec(service.url, "", 5, "digest") == expected


def test_without_a_gateway_the_launcher_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The private port of a launcher on this host has the metadata that TorchServe lacks."""
    with serve(Script()) as torchserve, serve(Script(page=PAGE)) as launcher:
        ports = [urlsplit(script.url).port or 0 for script in (torchserve, launcher)]
        monkeypatch.setattr("pinhole.address.PRIVATE_OFFSET", ports[1] - ports[0])

        assert find_image_spec(torchserve.url, "", 5, "digest") == SPEC
