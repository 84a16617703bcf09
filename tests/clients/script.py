"""A server that answers whatever it was told to."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Script:
    """A server's answers, in order (the last one again and again), and what it was asked."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)  # The client's port, for each of the requests.
    page: object = None  # The reply to GET /v2/models/embed; None is a 404.
    pages_told: int = 0  # How often that page was asked for.

    def say(self, status: int, body: bytes | object = b"", **headers: str) -> None:
        """Add an answer; an object is sent as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers.append((status, headers, data))


@contextmanager
def serve(script: Script) -> Iterator[Script]:
    """Follow a script on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            script.requests.append((self.path, dict(self.headers), body))
            script.ports.append(self.client_address[1])
            status, headers, data = script.answers[
                min(len(script.requests), len(script.answers)) - 1
            ]
            if status == 0:  # Close the connection without an answer.
                self.close_connection = True
                return
            if status == -1:  # Answer nothing for a while.
                time.sleep(1)
                return
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            if script.page is None:
                return self.send_error(404)
            script.pages_told += 1
            data = json.dumps(script.page).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            return None

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        script.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield script
        server.shutdown()


def error(status: int, kind: str = "Any", message: str = "why") -> dict[str, object]:
    """An error body of the contract."""
    return {"code": status, "type": kind, "message": message}
