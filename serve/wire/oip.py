"""Open Inference Protocol v2 over HTTP: one tensor in, named tensors out.

A body is JSON, and where the header Inference-Header-Content-Length says how long that JSON is, raw
tensors follow it: little-endian numbers in C order, or for BYTES each element after its length in
four bytes. https://github.com/kserve/open-inference-protocol and its binary tensor extension.

The protocol can't report that a single file failed, so a file that can't be read fails its request.
Shapes are checked against the limits first, and types before numpy sees a list, so that a hostile
body costs no more memory than its JSON.
"""

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from serve.bundle.limits import check_count
from serve.errors import InvalidRequest
from serve.wire.json_bodies import read_object, read_text

HEADER_LENGTH = "inference-header-content-length"
DTYPES: dict[Any, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}
NAMES = {np.dtype(np.uint8): "UINT8", np.dtype(np.float32): "FP32"}
LENGTH_FORM = re.compile("[0-9]{1,9}")
LARGEST_TENSOR = 2**31 - 1  # in numbers
LENGTH = struct.Struct("<I")  # stands before each element of a raw BYTES tensor


@dataclass(frozen=True)
class OipForm:
    """What an OIP reply has to look like.

    Attributes:
        id: the caller's own id for the request, repeated in the reply.
        outputs: name → whether to send that output raw.
    """

    id: str | None
    outputs: Mapping[str, bool]


def read_oip(
    body: bytes, headers: Mapping[str, str], name: str, outputs: Sequence[str]
) -> tuple[OipForm, NDArray[np.generic] | list[bytes]]:
    """Read a request.

    Args:
        body: of the request.
        headers: by lower-case name.
        name: of the endpoint's one input.
        outputs: names of the endpoint's outputs.

    Returns:
        What the reply has to look like; and numbers as an array of the sent shape, or the files of
        a BYTES tensor.

    Raises:
        InvalidRequest: the body doesn't follow the protocol, or isn't for this endpoint.
        InvalidImage: a file in JSON isn't base64.
        TooManyImages: the first size of the shape is over MAX_IMAGES.
    """
    head, raw = split_body(body, headers.get(HEADER_LENGTH))
    form = read_reply_form(head, outputs)
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
    if size is not None and (type(size) is not int or size != len(raw)):
        raise InvalidRequest(f"binary_data_size must be the {len(raw):,} bytes after the JSON")
    given = tensor.get("data") if size is None else raw
    datatype = tensor.get("datatype")
    if datatype == "BYTES":
        return form, read_files(given, math.prod(shape))
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise InvalidRequest("the datatype must be UINT8, FP32 or BYTES")
    numbers = read_numbers(given, DTYPES[datatype], math.prod(shape))
    return form, numbers.reshape(shape)


def split_body(body: bytes, length: str | None) -> tuple[dict[str, Any], bytes]:
    """The JSON object and the raw bytes after it.

    Raises:
        InvalidRequest: the body doesn't begin with a JSON object.
    """
    if length is not None and not (LENGTH_FORM.fullmatch(length) and int(length) <= len(body)):
        raise InvalidRequest(
            f"Inference-Header-Content-Length must be within the body's {len(body):,} bytes"
        )
    end = len(body) if length is None else int(length)
    return read_object(body[:end]), body[end:]


def read_shape(shape: Any) -> tuple[int, ...]:
    """A tensor's shape.

    Raises:
        InvalidRequest: the shape isn't a list of one to four sizes.
        TooManyImages: the first size is over MAX_IMAGES.
    """
    if not isinstance(shape, list) or not 1 <= len(shape) <= 4:
        raise InvalidRequest("the shape must be a list of one to four sizes")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise InvalidRequest("the sizes of a shape are whole numbers, none negative")
    check_count(shape[0])
    if math.prod(size for size in shape if size) > LARGEST_TENSOR:
        raise InvalidRequest(f"a tensor has at most {LARGEST_TENSOR:,} numbers")
    return tuple(shape)


def read_reply_form(head: Mapping[str, Any], outputs: Sequence[str]) -> OipForm:
    """Read which form the caller wants the reply in.

    Raises:
        InvalidRequest: ``outputs`` is malformed, or names an output that the endpoint doesn't have.
    """
    raw = parameters(head).get("binary_data_output") is True
    wanted = head.get("outputs")
    identity = head.get("id")
    if identity is not None and not isinstance(identity, str):
        raise InvalidRequest("the id must be a string")
    if wanted is None or wanted == []:
        return OipForm(identity, dict.fromkeys(outputs, raw))
    if not isinstance(wanted, list) or not all(isinstance(output, dict) for output in wanted):
        raise InvalidRequest("outputs must be a list of objects with a name")
    choices = {}
    for output in wanted:
        if output.get("name") not in outputs:
            raise InvalidRequest(f"no such output; the outputs are {', '.join(outputs)}")
        choices[output["name"]] = parameters(output).get("binary_data", raw) is True
    return OipForm(identity, choices)


def parameters(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The object called parameters; empty where there is none.

    Raises:
        InvalidRequest: a parameter asks for an extension that isn't offered here.
    """
    found = fields.get("parameters")
    if not isinstance(found, dict):
        return {}
    for extension in ("classification", "shared_memory_region"):
        if extension in found:
            raise InvalidRequest(f"{extension} is not offered here")
    return found


def read_files(given: Any, count: int) -> list[bytes]:
    """The elements of a BYTES tensor: raw, or base64 in a JSON list.

    Raises:
        InvalidRequest: an element can't be read, or there aren't ``count`` of them.
        InvalidImage: an element in JSON isn't base64.
        TooManyImages: ``count`` is over MAX_IMAGES.
    """
    check_count(count)
    files = split_files(given, count) if isinstance(given, bytes) else decode_files(given)
    if len(files) != count:
        raise InvalidRequest(f"the shape is that of {count:,} elements; {len(files):,} came")
    return files


def split_files(raw: bytes, count: int) -> list[bytes]:
    """The elements of a raw BYTES tensor, of which there should be ``count``.

    Raises:
        InvalidRequest: the bytes end within an element, or go on after the last element.
    """
    files, start = list[bytes](), 0
    while start < len(raw) and len(files) < count:
        begin = start + LENGTH.size
        if begin > len(raw):
            raise InvalidRequest("a BYTES tensor ends within a length")
        (size,) = LENGTH.unpack_from(raw, start)
        start = begin + size
        if start > len(raw):
            raise InvalidRequest("a BYTES tensor ends within an element")
        files.append(raw[begin:start])
    if start < len(raw):
        raise InvalidRequest(f"a BYTES tensor goes on after its {count:,} elements")
    return files


def decode_files(data: Any) -> list[bytes]:
    """The files of a BYTES tensor in JSON, where bytes have to be base64.

    Raises:
        InvalidRequest: ``data`` isn't a list of strings.
        InvalidImage: a string isn't base64.
    """
    if not isinstance(data, list) or not all(isinstance(text, str) for text in data):
        raise InvalidRequest("a BYTES tensor in JSON is a flat list of base64 strings")
    return [read_text(text) for text in data]


def read_numbers(given: Any, dtype: np.dtype[Any], count: int) -> NDArray[np.generic]:
    """Read numbers: a view of raw bytes, or the values of a JSON list, flat or nested.

    Raises:
        InvalidRequest: a number can't be read, or there aren't ``count`` of them.
    """
    if isinstance(given, bytes):
        if len(given) != count * dtype.itemsize:
            raise InvalidRequest(
                f"the shape is that of {count * dtype.itemsize:,} bytes; {len(given):,} came"
            )
        return np.frombuffer(given, dtype) if given else np.empty(0, dtype)
    flat = flatten(given)
    kinds, name = ({int}, "UINT8") if dtype == np.uint8 else ({int, float}, "FP32")
    if not set(map(type, flat)) <= kinds:  # not isinstance: True is an int in Python
        raise InvalidRequest(f"data must be a list of {name} numbers, flat or of the shape")
    if len(flat) != count:
        raise InvalidRequest(f"the shape is that of {count:,} numbers; {len(flat):,} came")
    if dtype == np.uint8 and flat and not 0 <= min(flat) <= max(flat) <= 255:
        raise InvalidRequest("a UINT8 is a whole number from 0 to 255")
    try:
        with np.errstate(over="ignore"):  # overflow becomes infinity, which is refused later
            return np.array(flat, np.float64).astype(dtype)
    except OverflowError as error:
        raise InvalidRequest("a number is out of every range") from error


def flatten(data: Any) -> list[Any]:
    """The leaves of a list nested up to four deep, which a caller may have filled with anything."""
    level = data if isinstance(data, list) else [data]
    for _ in range(3):
        if set(map(type, level)) != {list}:
            break
        level = list(chain.from_iterable(level))
    return level


def write_oip(
    form: OipForm, model: str, tensors: Mapping[str, NDArray[Any]]
) -> tuple[bytes, int | None]:
    """The body of a reply, and the length of its JSON where raw tensors follow."""
    outputs, blobs = [], []
    for name, raw in form.outputs.items():
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
            output["data"] = np.ascontiguousarray(tensor).ravel()
        outputs.append(output)
    reply: dict[str, Any] = {"model_name": model, "outputs": outputs}
    if form.id is not None:
        # As Python writes it: orjson refuses half a surrogate pair, which JSON may hold.
        reply["id"] = orjson.Fragment(json.dumps(form.id))
    head = orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)
    return head + b"".join(blobs), len(head) if blobs else None
