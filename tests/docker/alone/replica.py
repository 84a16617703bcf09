"""A replica that misbehaves as the first line of a request's body tells it to; needs Python alone.

hang S NAME…   the named replicas don't answer for S seconds
die NAME…      the named replicas close the connection
say STATUS     TorchServe's own error: neither in the contract's form, nor of the model
refuse STATUS  a handler's error
echo           the headers that came

Each request is a line on stdout. A replica that isn't named answers as to ``echo``.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = sys.argv[1]


class Replica(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Close the connection, as a launcher that ends."""
        self.close_connection = True

    def do_POST(self) -> None:
        """Do what the body says."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        command, *words = body.partition(b"\n")[0].decode().split()
        print(command, f"{time.time():.1f}", self.headers.get("X-Request-Id"), flush=True)
        if command == "die" and NAME in words:
            self.close_connection = True
        elif command == "say":
            error = {"code": int(words[0]), "type": "ModelServerException", "message": "…"}
            self.reply(int(words[0]), error)
        elif command == "refuse":
            self.reply(int(words[0]), {"message": "the handler's"}, **{"X-Model-Digest": "d"})
        else:
            if command == "hang" and NAME in words:
                time.sleep(float(words[0]))
            seen = {"name": NAME, "headers": dict(self.headers), "bytes": len(body)}
            self.reply(200, seen)

    def reply(self, status: int, fields: dict[str, object], **headers: str) -> None:
        """Send JSON."""
        body = json.dumps(fields).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Nothing but the line above."""


private = ThreadingHTTPServer(("", 8083), Replica)
threading.Thread(target=private.serve_forever, daemon=True).start()
ThreadingHTTPServer(("", 8080), Replica).serve_forever()
