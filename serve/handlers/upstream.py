"""The four things that TorchServe 0.12's worker is made to do otherwise; upstream is frozen.

- It asks its socket for every number and every string of a message on its own: some forty system
  calls for a request with six headers. Batches are read here instead, from large pieces. So are
  their files: TorchServe would turn the parts of a form into a dict, and of
  ``curl -F images=@a -F images=@b`` only b would reach a handler; and a stock one would parse JSON.
- It writes two lines for each batch to its stdout, for the JVM to parse: that it has come, and how
  long it took. serve.metrics knows more, at a fraction of the price. Its warnings go there as well,
  where the launcher's log would not show them.
- It doesn't tell anybody when it receives a batch, and when it has sent all answers.
- It sends the answers of a batch together, when the last of them is there.
"""

import logging
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Any

PARTS = "pinhole: every file of the form"  # a key no form field is likely to have
READ_AHEAD_BYTES = 1 << 16
NUMBER = struct.Struct("!i")


class Frames:
    """The messages of TorchServe's other side: numbers, and strings with their lengths before them.

    Args:
        connection: of which nothing of a next message has been read yet.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._data, self._at = b"", 0

    def take(self, count: int) -> bytes:
        """So many bytes; exits once there are none, as TorchServe does: its other side has gone."""
        end = self._at + count
        if end > len(self._data):
            self._receive(count)
            end = count
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def _receive(self, count: int) -> None:
        """Have at least so many bytes."""
        pieces = [self._data[self._at :]]
        missing = count - len(pieces[0])
        while missing > 0:
            pieces.append(self._connection.recv(max(missing, READ_AHEAD_BYTES)))
            if not pieces[-1]:
                sys.exit(0)
            missing -= len(pieces[-1])
        self._data, self._at = b"".join(pieces), 0

    def string(self) -> bytes | None:
        """A string; None where a list ends instead."""
        if self._at + NUMBER.size > len(self._data):
            self._receive(NUMBER.size)
        (length,) = NUMBER.unpack_from(self._data, self._at)
        self._at += NUMBER.size
        return None if length < 0 else self.take(length)

    def batch(self) -> list[dict[str, Any]]:
        """The requests of a batch, as TorchServe's own reader gives them, and PARTS."""
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
    """One of a request, in TorchServe's form."""
    return {"name": name, "contentType": content_type, "value": value}


def is_file(content_type: str) -> bool:
    """Whether a parameter is a file of a form.

    Files have a Content-Type; text fields have none. A form that TorchServe couldn't take apart,
    for lack of a boundary, is no file.
    """
    kind = content_type.strip().lower()
    return bool(kind) and not kind.startswith("multipart/")


def read_ahead() -> None:
    """Replace TorchServe's ``_retrieve_buffer`` and ``_retrieve_inference_msg`` by Frames.

    To be called while a message is answered: the worker has then read all of it and nothing more.
    """
    from ts.protocol import otf_message_handler

    all_frames: dict[socket.socket, Frames] = {}

    def frames(connection: socket.socket) -> Frames:
        if connection not in all_frames:
            all_frames[connection] = Frames(connection)
        return all_frames[connection]

    otf_message_handler._retrieve_buffer = lambda connection, count: frames(connection).take(count)
    otf_message_handler._retrieve_inference_msg = lambda connection: frames(connection).batch()


def be_quiet() -> None:
    """Keep TorchServe's Python half from writing what is no warning, and the rest to stderr."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    for handler in root.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)


def around_batches(begin: Callable[[], None], end: Callable[[], None]) -> None:
    """Have the worker call ``begin`` as a batch comes in, ``end`` once its last answer is out."""
    from ts.protocol import otf_message_handler

    worker: Any = sys.modules["__main__"]  # ts/model_service_worker.py
    read_batch, wait_for_message = otf_message_handler._retrieve_inference_msg, worker.retrieve_msg

    def read(connection: Any) -> Any:
        begin()  # the first byte is here
        return read_batch(connection)

    def wait(connection: Any) -> Any:
        end()
        return wait_for_message(connection)

    otf_message_handler._retrieve_inference_msg, worker.retrieve_msg = read, wait


def answer_early(context: Any, bodies: Mapping[int, bytes]) -> None:
    """Send the answers to some requests of a batch, and leave them out of its last message.

    TorchServe's other side takes a message for a batch's last unless one of its answers is to be
    continued. So one here is, and is ended in the same message; its caller sees a chunked reply
    with the header ts_stream_next. It has to be a success, since the connection of any other is
    closed after its first piece: where there is none, all wait.

    Should the worker die before the last message, TorchServe sends its error to these callers
    as well, and closes their connections.

    Args:
        context: of the batch, with the statuses and headers of these answers.
        bodies: of these answers, by their requests' places in the batch.
    """
    from ts.protocol.otf_message_handler import create_predict_response

    successes = (index for index in bodies if context.get_response_status(index)[0] == 200)
    if (begun := next(successes, None)) is None:
        return
    ids = {index: context.request_ids.pop(index) for index in bodies}
    first = create_predict_response(bodies, {begun: ids[begun]}, "", 200, context, True)
    others = create_predict_response({**bodies, begun: b""}, ids, "", 200, context)
    # A message is a status, an empty phrase, the answers, and the end of their list.
    context.cl_socket.sendall(first[: -NUMBER.size] + others[2 * NUMBER.size :])
