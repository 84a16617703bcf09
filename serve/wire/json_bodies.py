"""What a JSON body holds: an object, and files in it as text."""

import base64
import json
import re
from typing import Any

from serve.bundle.errors import InvalidImage
from serve.errors import InvalidRequest

# RFC 2397, as far as it holds base64; the case of the scheme and of "base64" doesn't matter.
DATA_URI = re.compile(r"\s*data:[^,]{0,200};base64,", re.IGNORECASE)
OTHER_URI = re.compile(r"\s*[a-z][a-z0-9+.-]{0,20}:", re.IGNORECASE)  # RFC 3986: a scheme
URL_SAFE = str.maketrans("-_", "+/")  # RFC 4648, section 5


def read_object(body: bytes) -> dict[str, Any]:
    """The object that a body is.

    Raises:
        InvalidRequest: the body isn't JSON, isn't an object, or has a number too long to be read.
    """
    try:
        fields = json.loads(body)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest("the body is not valid JSON") from error
    except ValueError as error:  # of int()
        raise InvalidRequest("a number in the body has over 4,300 digits") from error
    if not isinstance(fields, dict):
        raise InvalidRequest("the body must be a JSON object")
    return fields


def read_text(text: object) -> bytes:
    """The bytes of a file in base64, in any of its dialects, or in a data URI.

    Line breaks, the alphabet for URLs and missing padding are understood.

    Args:
        text: a string, or whatever else a caller has put in its place.

    Raises:
        InvalidImage: it isn't the text of a file. The address of a file is not followed: whoever
            may call the service could have it call anybody else.
    """
    if not isinstance(text, str):
        raise InvalidImage("a file in JSON is a string: base64, or a data URI")
    try:
        return base64.b64decode(text, validate=True)  # as most callers write it
    except ValueError:
        return read_dialect(text)


def read_dialect(text: str) -> bytes:
    """The bytes of a file in base64 that isn't written in the ordinary way; see read_text."""
    head = DATA_URI.match(text)
    if head is None and OTHER_URI.match(text):
        raise InvalidImage(
            "addresses are not followed; send the file itself, in base64 or as a base64 data URI"
        )
    digits = "".join(text[head.end() if head else 0 :].split())
    digits = digits.rstrip("=").translate(URL_SAFE)
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError as error:
        raise InvalidImage("a file in JSON is not valid base64") from error
