"""What both suites that send made-up requests share: the contract, and how replies are checked."""

from pathlib import Path

import schemathesis
from schemathesis import SerializationContext
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import serve

CONTRACT = schemathesis.openapi.from_path(Path(serve.__file__).with_name("openapi.yaml"))
CHECKS = [
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]


@schemathesis.serializer("application/x-npy", "image/*")
def as_bytes(context: SerializationContext, value: object) -> bytes:
    """Turn a value of schemathesis into a body that is no array and no image."""
    return value if isinstance(value, bytes) else repr(value).encode()
