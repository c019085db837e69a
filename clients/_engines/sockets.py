"""HTTP connections that keep one deadline for a whole exchange.

`requests` limits each wait for bytes, so a server that sends one byte now and then
holds a call for ever. These sockets wait only until the deadline of the calling thread.
"""

import socket
import ssl
import threading
import time
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.ssl_ import create_urllib3_context

__all__ = ["DeadlineAdapter", "until"]

_LEAST = 1e-3  # seconds; 0 would make the socket non-blocking


class _Current(threading.local):
    at: float | None = None


_current = _Current()


class until:  # noqa: N801 - reads as a word: `with until(deadline):`
    """Sets the deadline (monotonic time; None for none) of this thread's exchange."""

    def __init__(self, at: float | None) -> None:
        self._at = at

    def __enter__(self) -> None:
        _current.at = self._at

    def __exit__(self, *exc_info: object) -> None:
        _current.at = None


def _limit(sock: socket.socket) -> None:
    if _current.at is None:
        return
    left = _current.at - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    sock.settimeout(max(left, _LEAST))


class _DeadlineSocket(socket.socket):
    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        _limit(self)
        return super().recv_into(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        _limit(self)
        super().sendall(*args, **kwargs)


class _DeadlineSSLSocket(ssl.SSLSocket):
    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        _limit(self)
        return super().recv_into(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        _limit(self)
        super().sendall(*args, **kwargs)


class _Connection(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        plain = self.sock
        timeout = plain.gettimeout()
        self.sock = _DeadlineSocket(fileno=plain.detach())
        self.sock.settimeout(timeout)


class _TlsConnection(HTTPSConnection):
    def connect(self) -> None:
        if self.ssl_context is None:
            self.ssl_context = create_urllib3_context()
            if self.ca_certs is None:
                self.ssl_context.load_default_certs()
        self.ssl_context.sslsocket_class = _DeadlineSSLSocket
        super().connect()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class DeadlineAdapter(HTTPAdapter):
    """An adapter of `requests` whose connections heed `until`."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Makes the pool manager with our connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
