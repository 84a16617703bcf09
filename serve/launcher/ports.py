"""Refuse an address before anything starts on it."""

import socket

from serve.errors import LaunchError
from serve.launcher.settings import OFFSETS, Settings


def check_address(settings: Settings) -> None:
    """Refuse to publish an unauthenticated service, or to start on a port that is taken.

    Raises:
        LaunchError: in either case; the message names the host or the port.
    """
    if not settings.is_on_loopback and not settings.behind_gateway:
        raise LaunchError(
            f"--host {settings.host} would publish a service without authentication; "
            "put a gateway in front and say --behind-gateway"
        )
    hosts = {settings.port: settings.host, settings.private_port: settings.private_host}
    for port in (settings.port + offset for offset in OFFSETS[settings.server]):
        try:
            check_port(hosts.get(port, "127.0.0.1"), port)
        except OSError as error:
            raise LaunchError(f"can't listen on port {port}: {error.strerror}") from error


def check_port(host: str, port: int) -> None:
    """Listen on a port for a moment. Raises OSError where that can't be done."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
