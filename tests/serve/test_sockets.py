"""HTTP over the JVM's Unix sockets."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from serve.errors import LaunchError
from serve.torchserve.management import Management
from serve.torchserve.sockets import check_home, management_socket


@contextmanager
def replying(home: Path, reply: bytes) -> Iterator[list[bytes]]:
    """Something on the management socket that sends ``reply`` to a request; yields the request."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(management_socket(home)))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(65_536))
                connection.sendall(reply)

        answering = threading.Thread(target=answer)
        answering.start()
        yield asked
        answering.join()


def http(status: str, body: str) -> bytes:
    """A reply in HTTP."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def test_ready_workers_are_counted(tmp_path: Path) -> None:
    """The management API is asked on its socket in the service's home."""
    body = '[{"workers": [{"status": "READY"}, {"status": "UNLOADING"}]}]'
    with replying(tmp_path, http("200 OK", body)) as asked:
        assert Management(tmp_path).ready_workers("embed") == 1

    assert asked[0].startswith(b"GET /models/embed HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (http("404 Not Found", "{}"), "answered GET /models/embed with HTTP 404"),
        (http("200 OK", "no JSON"), "answered GET /models/embed without JSON"),
        (http("200 OK", "[]"), "describes embed in an unknown way"),
        (b"nonsense\r\n", r"no proper answer .* to GET /models/embed \(BadStatusLine\)"),
        (b"", r"no proper answer .* \(RemoteDisconnected\)"),
    ],
)
def test_wrong_answers_are_one_kind_of_error(tmp_path: Path, reply: bytes, message: str) -> None:
    """Whatever TorchServe answers, the launcher gets workers or a LaunchError that says why not."""
    with replying(tmp_path, reply), pytest.raises(LaunchError, match=message):
        Management(tmp_path).ready_workers("embed")


def test_nobody_there(tmp_path: Path) -> None:
    """Until the JVM listens there is no socket."""
    with pytest.raises(LaunchError, match="TorchServe doesn't listen yet"):
        Management(tmp_path).ready_workers("embed")


def test_folder_without_execution_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing may be executed the JVM would have no Unix sockets, so it isn't started."""
    check_home(tmp_path)

    monkeypatch.setattr("os.statvfs", lambda path: SimpleNamespace(f_flag=os.ST_NOEXEC))
    with pytest.raises(LaunchError, match="set TMPDIR to another folder"):
        check_home(tmp_path)
