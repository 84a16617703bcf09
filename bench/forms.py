"""How the peers want one image file: (file, kind) → body and headers; and where the answer is."""

import base64
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

Form = Callable[[bytes, str], tuple[bytes, Mapping[str, str]]]


def file_form(file: bytes, kind: str) -> tuple[bytes, Mapping[str, str]]:
    """The body is the file."""
    return file, {"Content-Type": f"image/{kind}"}


def base64_form(file: bytes, kind: str) -> tuple[bytes, Mapping[str, str]]:
    """The Open Inference Protocol in JSON, with the file in base64 as MLServer has it."""
    tensor = {
        "name": "images",
        "datatype": "BYTES",
        "shape": [1],
        "parameters": {"content_type": "base64"},
        "data": [base64.b64encode(file).decode()],
    }
    return json.dumps({"inputs": [tensor]}).encode(), {"Content-Type": "application/json"}


def tensor_form(file: bytes, kind: str) -> tuple[bytes, Mapping[str, str]]:
    """The Open Inference Protocol with binary tensors: BYTES[1, 1], its length before the file."""
    data = struct.pack("<I", len(file)) + file
    tensor = {
        "name": "images",
        "datatype": "BYTES",
        "shape": [1, 1],
        "parameters": {"binary_data_size": len(data)},
    }
    return with_head({"inputs": [tensor]}, data)


def with_head(head: Mapping[str, Any], data: bytes) -> tuple[bytes, Mapping[str, str]]:
    """JSON with binary data after it."""
    encoded = json.dumps(head).encode()
    return encoded + data, {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(encoded)),
    }


def embedding_in(reply: Mapping[str, Any]) -> list[float]:
    """The embedding in a JSON reply of any contender."""
    return reply["outputs"][0]["data"] if "outputs" in reply else reply["embedding"]
