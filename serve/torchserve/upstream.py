"""Changes to TorchServe 0.12's own worker code, made as it runs: TorchServe is frozen upstream.

The JVM and a worker talk over a socket: the JVM sends a dynamic batch, the worker sends one message
with all its replies. Four things are changed here, in the worker's process:

- TorchServe reads each number and each string of a batch with a system call of its own, some forty
  for a request with six headers. Here a batch is read in large pieces (``read_ahead``).
- TorchServe makes a dict of a form's parts, so that of ``curl -F images=@a -F images=@b`` only b
  would reach a handler. Here all files of a form are kept, under the key PARTS.
- TorchServe prints two lines to its stdout for each batch, for the JVM to parse as metrics. They
  cost more time than serve.metrics, which counts more, and are left out (``be_quiet``). Warnings
  go to stdout too, where the launcher's log wouldn't show them: here they go to stderr.
- TorchServe has no hook for a batch that comes in or is answered (``around_batches``).

docs/torchserve.md has the details of each.
"""

import functools
import logging
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

PARTS = "pinhole: every file of the form"  # a key that no form field is likely to have
READ_AHEAD_BYTES = 1 << 16
NUMBER = struct.Struct("!i")  # every number on the socket, string lengths included


class Frames:
    """Reads the JVM's messages: numbers, and strings that follow their length.

    Args:
        connection: to the JVM; nothing of its next message has been read yet.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._data, self._at = b"", 0

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes. Exits, as TorchServe does, once the JVM closes the socket."""
        end = self._at + count
        if end > len(self._data):
            self._receive(count)
            end = count
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def _receive(self, count: int) -> None:
        """Read until at least ``count`` bytes are at hand."""
        pieces = [self._data[self._at :]]
        missing = count - len(pieces[0])
        while missing > 0:
            pieces.append(self._connection.recv(max(missing, READ_AHEAD_BYTES)))
            if not pieces[-1]:
                sys.exit(0)
            missing -= len(pieces[-1])
        self._data, self._at = b"".join(pieces), 0

    def string(self) -> bytes | None:
        """The next string; None where a negative length marks the end of a list."""
        if self._at + NUMBER.size > len(self._data):
            self._receive(NUMBER.size)
        (length,) = NUMBER.unpack_from(self._data, self._at)
        self._at += NUMBER.size
        return None if length < 0 else self.take(length)

    def batch(self) -> list[dict[str, Any]]:
        """The requests of a batch, in the form of TorchServe's own reader, each with its PARTS."""
        requests = []
        while (request_id := self.string()) is not None:
            headers, parameters = [], []
            while (name := self.string()) is not None:
                headers.append({"name": name, "value": self.string()})
            while (name := self.string()) is not None:
                content_type = (self.string() or b"").decode()
                parameters.append(parameter(name.decode(), content_type, self.string()))
            files = [each["value"] for each in parameters if is_file(each["contentType"])]
            parameters.append(parameter(PARTS, "", files))
            requests.append({"requestId": request_id, "headers": headers, "parameters": parameters})
        return requests


def parameter(name: str, content_type: str, value: Any) -> dict[str, Any]:
    """One parameter of a request, in TorchServe's form."""
    return {"name": name, "contentType": content_type, "value": value}


def is_file(content_type: str) -> bool:
    """Whether a parameter is a file of a form.

    A form's files have a Content-Type and its text fields have none. Where a form has no boundary,
    TorchServe can't take it apart and passes it on whole, as one parameter of type multipart.
    """
    kind = content_type.strip().lower()
    return bool(kind) and not kind.startswith("multipart/")


def read_ahead() -> None:
    """Replace TorchServe's ``_retrieve_buffer`` and ``_retrieve_inference_msg`` by Frames.

    Call it while a message is being handled: the worker has then read that message to its end, and
    nothing after it.
    """
    from ts.protocol import otf_message_handler

    frames = functools.cache(Frames)  # those of each connection
    otf_message_handler._retrieve_buffer = lambda connection, count: frames(connection).take(count)
    otf_message_handler._retrieve_inference_msg = lambda connection: frames(connection).batch()


def be_quiet() -> None:
    """Have TorchServe's Python code log warnings only, and to stderr."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    for handler in root.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)


def around_batches(begin: Callable[[], None], end: Callable[[], None]) -> None:
    """Have the worker call ``begin`` as a batch comes in, and ``end`` once its last reply is out.

    The worker asks for the next message when it has sent all replies, so that is where ``end`` is
    called.
    """
    from ts.protocol import otf_message_handler

    worker: Any = sys.modules["__main__"]  # ts/model_service_worker.py
    read_batch, wait_for_message = otf_message_handler._retrieve_inference_msg, worker.retrieve_msg

    def read(connection: Any) -> Any:
        begin()  # the batch's first byte has arrived
        return read_batch(connection)

    def wait(connection: Any) -> Any:
        end()
        return wait_for_message(connection)

    otf_message_handler._retrieve_inference_msg, worker.retrieve_msg = read, wait
