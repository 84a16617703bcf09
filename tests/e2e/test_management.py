"""Who can manage a running service: its launcher, and no web page or other user of the host."""

import socket

import pytest
import requests

from serve.launcher.settings import OFFSETS, PORTS_NEEDED
from serve.torchserve.sockets import management_socket, metrics_socket

from .conftest import Running

on_torchserve = pytest.mark.parametrize("service", ["torchserve"], indirect=True)
REMOVE = "/org.pytorch.serve.grpc.management.ManagementAPIsService/UnregisterModel"


def test_no_port_but_those_we_know(service: Running) -> None:
    """TorchServe's management API and its metrics have no port, and granian has none for them."""
    open_offsets = set()
    for offset in range(PORTS_NEEDED):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", service.port + offset)) == 0:
                open_offsets.add(offset)

    assert open_offsets == set(OFFSETS[service.server])


@on_torchserve
def test_management_is_for_this_user_alone(service: Running) -> None:
    """Both sockets are in a folder that no other user can enter."""
    assert management_socket(service.home).is_socket()
    assert metrics_socket(service.home).is_socket()
    assert service.home.stat().st_mode & 0o777 == 0o700


@on_torchserve
def test_grpc_is_closed_to_web_pages(service: Running) -> None:
    """TorchServe's gRPC management, which can't be turned off, doesn't speak a browser's HTTP."""
    message = b"\0\0\0\0\7\n\5embed"  # gRPC's frame, then model_name in protocol buffers
    headers = {"Origin": "https://evil.example", "Content-Type": "application/grpc"}
    url = f"http://127.0.0.1:{service.port + 5}{REMOVE}"

    with socket.create_connection(("127.0.0.1", service.port + 5), 5):
        pass  # something listens there
    with pytest.raises(requests.ConnectionError):
        requests.post(url, message, headers=headers, timeout=10)

    assert service.readiness().ok
