"""OpenAI's embeddings API: files as text in, their embeddings out.

https://platform.openai.com/docs/api-reference/embeddings. Where a text has a model embed words,
here it is an image file. As in OIP, there is no place for single failures: a file that can't be
read fails its request.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from serve.bundle.manifest import Manifest
from serve.errors import InvalidRequest, NotFound
from serve.wire.json_bodies import read_object


@dataclass(frozen=True)
class OpenAiForm:
    """What a reply in OpenAI's form has to look like.

    Attributes:
        model: its name.
        raw: whether embeddings are sent as base64 of their float32, little-endian.
    """

    model: str
    raw: bool


def read_openai(body: bytes, manifest: Manifest) -> tuple[OpenAiForm, list[Any]]:
    """Read a request; returns its form, and its files as text, none of them read yet.

    Raises:
        InvalidRequest: the body doesn't follow the API.
        NotFound: it is for another model.
    """
    fields = read_object(body)
    model, given = fields.get("model"), fields.get("input")
    if not isinstance(model, str):
        raise InvalidRequest(f'"model" must be a string: "{manifest.name}"')
    if model != manifest.name:
        raise NotFound(f'no such model; the model here is called "{manifest.name}"')
    encoding = fields.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise InvalidRequest('"encoding_format" must be float or base64')
    if fields.get("dimensions") not in (None, manifest.embedding_width):
        raise InvalidRequest(f'"dimensions" must be {manifest.embedding_width}, or be left out')
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise InvalidRequest('"input" must be an image file as base64 text, or a list of some')
    return OpenAiForm(model, encoding == "base64"), texts


def write_openai(form: OpenAiForm, embeddings: Sequence[NDArray[np.float32]]) -> bytes:
    """The body of a reply; nothing is counted in tokens."""
    rows = [encode(embedding) if form.raw else embedding for embedding in embeddings]
    reply = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": row}
            for index, row in enumerate(rows)
        ],
        "model": form.model,
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }
    return orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)


def encode(embedding: NDArray[np.float32]) -> str:
    """float32[D] as base64."""
    return base64.b64encode(embedding.astype("<f4").tobytes()).decode()
