"""The four things in TorchServe 0.12's worker that are changed while it runs; upstream is frozen.

- It turns the parts of a request into a dict, so of ``curl -F images=@a -F images=@b`` only b would
  reach a handler. The row is given the list as well.
- It asks its socket for every number and every string of a message on its own: some forty system
  calls for a request with six headers. It is given a buffered reader instead.
- It writes two lines for each batch to its stdout, for the JVM to parse: that it has come, and how
  long it took. serve.metrics knows more, at a fraction of the price. Its warnings go there as well,
  where the launcher's log would not show them.
- It doesn't tell anybody when it receives a batch, and when it has sent all answers.
"""

import functools
import io
import logging
import sys
from collections.abc import Callable
from typing import Any

from serve.activity import Activity

PARTS = "pinhole: every file of the form"  # a key no form field is likely to have
READ_AHEAD_BYTES = 1 << 16


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


def read_ahead() -> None:
    """Replace TorchServe's ``_retrieve_buffer`` by a reader with a buffer.

    To be called while a message is answered: the worker has then read all of it and nothing more.
    """
    from ts.protocol import otf_message_handler

    otf_message_handler._retrieve_buffer = buffered()


def buffered() -> Callable[[Any, int], bytes]:
    """A function that takes so many bytes from a socket, and exits once there are none."""
    readers: dict[Any, io.BufferedReader] = {}

    def take(connection: Any, count: int) -> bytes:
        if connection not in readers:
            readers[connection] = connection.makefile("rb", READ_AHEAD_BYTES)
        data = readers[connection].read(count)
        if len(data) < count:
            sys.exit(0)  # as TorchServe does: its other side has gone
        return data

    return take


def be_quiet() -> None:
    """Keep TorchServe's Python half from writing what is no warning, and the rest to stderr."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    for handler in root.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)


def tell_of_batches(activity: Activity) -> None:
    """Have the worker tell when a batch begins to come in and when its last answer has gone out."""
    from ts.protocol import otf_message_handler

    worker: Any = sys.modules["__main__"]  # ts/model_service_worker.py
    read_batch, wait_for_message = otf_message_handler._retrieve_inference_msg, worker.retrieve_msg

    def begin(connection: Any) -> Any:
        activity.begin()  # the first byte is here
        return read_batch(connection)

    def end(connection: Any) -> Any:
        activity.end()
        return wait_for_message(connection)

    otf_message_handler._retrieve_inference_msg, worker.retrieve_msg = begin, end
