"""Pages of other origins, on the second server; tests/docker asks the gateway the same."""

from dataclasses import dataclass, field

import pytest

from serve.granian.cors import cors_headers

SITE, OTHER = "https://site.example", "https://other.example"


@dataclass
class Scope:
    """A request, as Granian hands it over."""

    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        ({SITE}, SITE, True),
        ({SITE}, SITE.upper(), True),
        ({SITE}, OTHER, False),
        ({SITE}, SITE + ".evil.example", False),
        ({SITE}, "http://site.example", False),
        ({SITE}, "null", False),
        ({SITE, OTHER}, OTHER, True),
        ({"*"}, OTHER, True),
        ({SITE}, None, False),
        ({"*"}, None, False),
    ],
)
def test_only_listed_origins_are_allowed(
    origins: set[str], origin: str | None, allowed: bool
) -> None:
    """A page of a listed origin may read everything; caches are told that replies differ."""
    headers = dict(cors_headers(Scope(headers={"origin": origin} if origin else {}), origins))

    assert headers.pop("vary") == "Origin"
    shared = {"access-control-allow-origin": origin, "access-control-expose-headers": "*"}
    assert headers == (shared if allowed else {})
