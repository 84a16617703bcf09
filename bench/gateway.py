"""The gateway in front of a contender of ours: the host's nginx with this project's configuration.

The container's own files are used: start.sh and nginx.conf, with this host's ports and folders in
place of the container's. Needs nginx (apt-get install nginx).
"""

import getpass
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench.contenders import START_S, Running, ask, free_port, stop
from bench.environments import ROOT
from bench.wrk import Target
from serve.launcher.settings import PRIVATE_OFFSET

FILES = ROOT / "serve" / "gateway"
LIMITS = {"PINHOLE_RATE": "1000000", "PINHOLE_CONNECTIONS": "1000"}  # nothing is refused


def has_nginx() -> bool:
    """Whether this host has nginx."""
    return shutil.which("nginx") is not None


@contextmanager
def gateway(service: Running, folder: Path) -> Iterator[Target]:
    """Start nginx in front of a service; gives the service's single request, sent through nginx.

    Raises:
        RuntimeError: nginx doesn't answer rightly; the message ends with its log.
    """
    port = free_port()
    single = Target(
        service.single.url.replace(service.url, f"http://127.0.0.1:{port}"),
        service.single.body,
        service.single.headers,
    )
    process = start(service.port, port, folder)
    service.processes.append(process)
    try:
        wait(single, process, folder)
        yield single
    finally:
        service.processes.remove(process)
        stop(process)


def start(service_port: int, port: int, folder: Path) -> psutil.Popen:
    """Run start.sh, which becomes nginx."""
    (folder / "mime.types").write_text("types {}")
    for name in ("start.sh", "nginx.conf", "errors.conf", "private.conf", "proxy.conf"):
        text = (FILES / name).read_text()
        for there, here in here_and_there(service_port, port, folder).items():
            text = text.replace(there, here)
        (folder / name).write_text(text)
    settings = LIMITS | {"PINHOLE_SERVICE": "127.0.0.1", "PINHOLE_RESOLVER": "127.0.0.1"}
    with (folder / "gateway.log").open("w") as log:
        return psutil.Popen(
            ["sh", folder / "start.sh"],
            env=os.environ | settings,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def here_and_there(service_port: int, port: int, folder: Path) -> dict[str, str]:
    """What the container's files say → what they have to say on this host."""
    return {
        "/tmp/": f"{folder}/",  # noqa: S108 - of the container
        "/etc/nginx/": f"{folder}/",
        "/dev/stdout": f"{folder}/access.log",
        ":8080 resolve": f":{service_port}",
        ":8083 resolve": f":{service_port + PRIVATE_OFFSET}",
        "listen 8080": f"listen 127.0.0.1:{port}",
        "listen 8081": f"listen 127.0.0.1:{port + 1}",
        "exec nginx -g 'daemon off;'": f"exec nginx -c {folder}/nginx.conf "
        f"-g 'daemon off; user {getpass.getuser()};'",
        "  add_header_inherit merge;\n": "",  # of nginx 1.29 and later; changes headers of errors
    }


def wait(single: Target, process: psutil.Popen, folder: Path) -> None:
    """Wait until a request through nginx is answered.

    Raises:
        RuntimeError: it isn't.
    """
    end = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end:
        try:
            if ask(single).ok:
                return
        except OSError:  # of requests' errors the base
            time.sleep(0.05)
    raise RuntimeError(f"nginx did not start:\n{(folder / 'gateway.log').read_text()[-2000:]}")
