"""Clients that vanish."""

import socket
import struct

import pytest

from tests.support.attacks import SMALL, AttackedServer

pytestmark = pytest.mark.slow

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER that resets the connection


def test_clients_that_vanish_in_the_middle(server: AttackedServer) -> None:
    head = f"POST /v1/models/{SMALL}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n"
    with server.attacked(seconds=20):
        for port in (server.rest_port, server.grpc_port):
            for size in range(0, len(head), 2):
                with socket.create_connection(("127.0.0.1", port), 10) as sock:
                    sock.sendall(head.encode()[:size])
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
