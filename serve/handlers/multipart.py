"""Every part of a multipart form, where TorchServe keeps one for each name.

TorchServe 0.12 turns the parts of a request into a dict, so of ``curl -F images=@a -F images=@b``
only b would reach a handler. Its method is wrapped here so that the row also carries the list.
"""

import functools
from collections.abc import Callable
from typing import Any

PARTS = "pinhole: every file of the form"  # a key no form field is likely to have


def keep_every_part() -> None:
    """Wrap TorchServe's ``Service.retrieve_data_for_inference``, once in this process."""
    from ts.service import Service

    original = Service.retrieve_data_for_inference
    if not hasattr(original, "__wrapped__"):
        Service.retrieve_data_for_inference = staticmethod(keeping_parts(original))


def keeping_parts(retrieve: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``retrieve``, with the files of each request under PARTS of its row.

    Files are what has a Content-Type; text fields have none. A form that TorchServe couldn't take
    apart, for lack of a boundary, is no file.
    """

    @functools.wraps(retrieve)
    def wrapped(batch: Any) -> Any:
        headers, rows, ids = retrieve(batch)
        for row, request in zip(rows, batch, strict=True):
            row[PARTS] = [part["value"] for part in request["parameters"] if is_file(part)]
        return headers, rows, ids

    return wrapped


def is_file(part: Any) -> bool:
    """Whether a parameter of a request is a file."""
    content_type = part["contentType"].strip().lower()
    return bool(content_type) and not content_type.startswith("multipart/")
