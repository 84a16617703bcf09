"""Open Inference Protocol v2 over HTTP: one tensor in, named tensors out.

A body is JSON, and where the header Inference-Header-Content-Length says how long that JSON is, raw
tensors follow it: little-endian numbers in C order, or for BYTES each element after its length in
four bytes. https://github.com/kserve/open-inference-protocol and its binary tensor extension.

The protocol has no room for single failures: one file that can't be read fails the request.
"""

import base64
import binascii
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.errors import InvalidRequest
from serve.limits import MAX_IMAGES

HEADER_LENGTH = "inference-header-content-length"
DTYPES: dict[Any, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}
NAMES = {np.dtype(np.uint8): "UINT8", np.dtype(np.float32): "FP32"}
LENGTH = struct.Struct("<I")  # before each element of a raw BYTES tensor


@dataclass(frozen=True)
class OipForm:
    """What an OIP reply has to look like.

    Attributes:
        id: the caller's own, given back.
        outputs: name → whether to send it raw; None for every output, as ``raw`` says.
        raw: whether outputs are raw where nothing else is said.
    """

    id: str | None
    outputs: Mapping[str, bool] | None
    raw: bool


@dataclass(frozen=True)
class OipRequest:
    """A request whose tensor could be read.

    Attributes:
        form: of the reply.
        tensor: numbers as an array of the sent shape, or the files of a BYTES tensor.
    """

    form: OipForm
    tensor: NDArray[np.generic] | list[bytes]


def read_oip(body: bytes, headers: Mapping[str, str], name: str) -> OipRequest:
    """Read a request for the one input ``name``.

    Raises:
        InvalidRequest: it is not of the protocol, or not for this model.
    """
    head, raw = split_body(body, headers.get(HEADER_LENGTH))
    inputs = head.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise InvalidRequest(f'an inference request has one input, "{name}"')
    tensor = inputs[0]
    if tensor.get("name") != name:
        raise InvalidRequest(f'the input is called "{name}" here')
    shape = read_shape(tensor.get("shape"))
    size = parameters(tensor).get("binary_data_size")
    if size is None and raw:
        raise InvalidRequest("raw bytes follow the JSON, but no input has a binary_data_size")
    if size is not None and size != len(raw):
        raise InvalidRequest(f"binary_data_size must be the {len(raw):,} bytes after the JSON")
    datatype = tensor.get("datatype")
    if datatype == "BYTES":
        files = split_files(raw) if size is not None else decode_files(tensor.get("data"))
        if len(files) != math.prod(shape):
            raise InvalidRequest(f"the shape {list(shape)} isn't that of {len(files):,} elements")
        return OipRequest(read_form(head), files)
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise InvalidRequest("the datatype must be UINT8, FP32 or BYTES")
    dtype = DTYPES[datatype]
    numbers = from_raw(raw, dtype) if size is not None else from_json(tensor.get("data"), dtype)
    if numbers.size != math.prod(shape):
        raise InvalidRequest(f"the shape {list(shape)} isn't that of {numbers.size:,} numbers")
    return OipRequest(read_form(head), numbers.reshape(shape))


def split_body(body: bytes, length: str | None) -> tuple[dict[str, Any], bytes]:
    """The JSON object and the raw bytes after it.

    Raises:
        InvalidRequest: there is no such object.
    """
    if length is not None and not (length.isdecimal() and int(length) <= len(body)):
        raise InvalidRequest(
            f"Inference-Header-Content-Length must be within the body's {len(body):,} bytes"
        )
    end = len(body) if length is None else int(length)
    try:
        head = json.loads(body[:end])
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("the body is not valid JSON") from error
    if not isinstance(head, dict):
        raise InvalidRequest("the body must be a JSON object")
    return head, body[end:]


def read_shape(shape: Any) -> tuple[int, ...]:
    """A tensor's shape.

    Raises:
        InvalidRequest: not one to four sizes.
    """
    if not isinstance(shape, list) or not 1 <= len(shape) <= 4:
        raise InvalidRequest("the shape must be a list of one to four sizes")
    if not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise InvalidRequest("the sizes of a shape are whole numbers, none negative or huge")
    return tuple(shape)


def read_form(head: Mapping[str, Any]) -> OipForm:
    """What the caller wants back.

    Raises:
        InvalidRequest: ``outputs`` is not a list of names.
    """
    raw = parameters(head).get("binary_data_output") is True
    wanted = head.get("outputs")
    identity = head.get("id")
    if identity is not None and not isinstance(identity, str):
        raise InvalidRequest("the id must be a string")
    if wanted is None:
        return OipForm(identity, None, raw)
    if not isinstance(wanted, list) or not all(
        isinstance(output, dict) and isinstance(output.get("name"), str) for output in wanted
    ):
        raise InvalidRequest("outputs must be a list of objects with a name")
    choices = {o["name"]: parameters(o).get("binary_data", raw) is True for o in wanted}
    return OipForm(identity, choices, raw)


def parameters(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The object called parameters; empty where there is none."""
    found = fields.get("parameters")
    return found if isinstance(found, dict) else {}


def split_files(raw: bytes) -> list[bytes]:
    """The elements of a raw BYTES tensor.

    Raises:
        InvalidRequest: a length points past the end.
    """
    files, start = [], 0
    while start < len(raw):
        begin = start + LENGTH.size
        if begin > len(raw):
            raise InvalidRequest("a BYTES tensor ends within a length")
        (size,) = LENGTH.unpack_from(raw, start)
        start = begin + size
        if start > len(raw):
            raise InvalidRequest("a BYTES tensor ends within an element")
        files.append(raw[begin:start])
        if len(files) > MAX_IMAGES:
            break  # over the limit, which the caller of this module words
    return files


def decode_files(data: Any) -> list[bytes]:
    """The files of a BYTES tensor in JSON, where bytes have to be base64.

    Raises:
        InvalidRequest: an element isn't.
    """
    if not isinstance(data, list) or not all(isinstance(text, str) for text in data):
        raise InvalidRequest("a BYTES tensor in JSON is a flat list of base64 strings")
    try:
        return [base64.b64decode(text, validate=True) for text in data[: MAX_IMAGES + 1]]
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest("an element of a BYTES tensor is not valid base64") from error


def from_raw(raw: bytes, dtype: np.dtype[Any]) -> NDArray[np.generic]:
    """Raw numbers, as a view of ``raw``.

    Raises:
        InvalidRequest: not a whole number of them.
    """
    if len(raw) % dtype.itemsize:
        raise InvalidRequest(f"{len(raw):,} bytes are no whole number of {NAMES[dtype]}")
    return np.frombuffer(raw, dtype) if raw else np.empty(0, dtype)


def from_json(data: Any, dtype: np.dtype[Any]) -> NDArray[np.generic]:
    """Numbers from a flat or nested JSON list.

    Raises:
        InvalidRequest: anything else is in it, or a number is out of the datatype's range.
    """
    wrong = InvalidRequest(f"data must be a list of {NAMES[dtype]} numbers, flat or of the shape")
    if not isinstance(data, list):
        raise wrong
    try:
        numbers = np.asarray(data)
    except (ValueError, OverflowError) as error:  # ragged, or an integer beyond 64 bits
        raise wrong from error
    if dtype == np.uint8:
        if numbers.size and (numbers.dtype.kind not in "iu" or not in_byte(numbers)):
            raise wrong
    elif numbers.size and numbers.dtype.kind not in "iuf":
        raise wrong
    return numbers.astype(dtype)


def in_byte(numbers: NDArray[Any]) -> bool:
    """Whether all integers are within 0 and 255."""
    return bool(numbers.min() >= 0 and numbers.max() <= 255)


def write_oip(
    form: OipForm, model: str, tensors: Mapping[str, NDArray[Any]]
) -> tuple[bytes, int | None]:
    """The body of a reply, and the length of its JSON where raw tensors follow.

    Raises:
        InvalidRequest: an output is asked for that there isn't.
    """
    wanted = form.outputs if form.outputs is not None else dict.fromkeys(tensors, form.raw)
    for name in wanted:
        if name not in tensors:
            raise InvalidRequest(f"there is no such output; there are {', '.join(tensors)}")
    outputs, blobs = [], []
    for name, raw in wanted.items():
        tensor = tensors[name]
        output: dict[str, Any] = {
            "name": name,
            "datatype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
        }
        if raw:
            blobs.append(tensor.astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes())
            output["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            output["data"] = tensor.ravel().tolist()
        outputs.append(output)
    reply: dict[str, Any] = {"model_name": model, "outputs": outputs}
    if form.id is not None:
        reply["id"] = form.id
    head = json.dumps(reply, separators=(",", ":")).encode()
    return head + b"".join(blobs), len(head) if blobs else None
