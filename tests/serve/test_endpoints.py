"""Everything that lists endpoints agrees with the table in serve.endpoints."""

import re
from pathlib import Path

import yaml

from export import archive
from serve.bundle.manifest import Bundle
from serve.canary import Canary
from serve.endpoints import ENDPOINTS, make_canaries, tensors
from serve.service import Service

SERVE = Path(__file__).parents[2] / "serve"
CONTRACT = (SERVE / "openapi.yaml").read_text()


def test_every_endpoint_is_complete(small_bundle: Bundle, service: Service) -> None:
    """Every endpoint has known tensors, an operation of the service, and a canary."""
    known = tensors(small_bundle.manifest)
    for name, endpoint in ENDPOINTS.items():
        assert name == endpoint.name
        assert {endpoint.takes, *endpoint.gives} <= set(known)
        assert callable(service.operation(name))
    canaries = make_canaries(small_bundle, "fp32")
    assert set(canaries) == set(ENDPOINTS)
    assert all(isinstance(canary, Canary) for canary in canaries.values())


def test_archives_are_of_these_endpoints() -> None:
    """Export's list of endpoints is the table's, which export may not import."""
    assert tuple(ENDPOINTS) == archive.ENDPOINTS


def test_contract_knows_these_endpoints() -> None:
    """openapi.yaml has a path for each endpoint, and every list of names in it is the table's."""
    paths = [path for path in yaml.safe_load(CONTRACT)["paths"] if path.startswith("/predictions/")]
    enums = [found.split(", ") for found in re.findall(r"enum: \[(.*)\]", CONTRACT)]
    takes = {endpoint.takes for endpoint in ENDPOINTS.values()}
    gives = {name for endpoint in ENDPOINTS.values() for name in endpoint.gives}

    assert paths == [f"/predictions/{name}" for name in ENDPOINTS]
    endpoints = [each for each in enums if set(each) & set(ENDPOINTS)]
    assert endpoints == [list(ENDPOINTS)] * len(endpoints) != []
    names = [set(each) for each in enums if "embeddings" in each]
    assert all(each in (takes, gives, takes | gives) for each in names)
    assert len(names) == 4


def test_gateway_passes_these_endpoints_on() -> None:
    """Every list of endpoints in nginx.conf is the table's."""
    text = (SERVE / "gateway" / "nginx.conf").read_text()
    lists = [found.split("|") for found in re.findall(r"\((\w+(?:\|\w+)+)\)", text)]
    endpoints = [each for each in lists if set(each) & set(ENDPOINTS)]

    assert endpoints == [list(ENDPOINTS)] * len(endpoints)
    assert len(endpoints) == text.count("(embed|") > 0
