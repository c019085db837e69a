"""HTTP connections that keep one deadline for a whole exchange.

urllib3 limits each wait for bytes, so a server that sends one byte now and then would hold a call
indefinitely. These sockets wait only until the deadline of the calling thread.
"""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from urllib3 import (
    HTTPConnectionPool,
    HTTPSConnectionPool,
    PoolManager,
    ProxyManager,
    make_headers,
)
from urllib3.connection import HTTPConnection
from urllib3.util import parse_url

from shortlist.clients.connection import Tls

__all__ = ["pool_manager", "until"]

_MIN_TIMEOUT: Final = 1e-3  # seconds; 0 would make the socket non-blocking


class _Current(threading.local):
    deadline: float | None = None


_current = _Current()


@contextmanager
def until(deadline: float | None) -> Iterator[None]:
    """Set the deadline (monotonic time; `None` for none) of this thread's exchange."""
    _current.deadline = deadline
    try:
        yield
    finally:
        _current.deadline = None


def _limit(sock: socket.socket) -> None:
    if _current.deadline is None:
        return
    remaining = _current.deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("timed out")
    sock.settimeout(max(remaining, _MIN_TIMEOUT))


class _DeadlineSocket(socket.socket):
    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        _limit(self)
        return super().recv_into(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        _limit(self)
        super().sendall(*args, **kwargs)


class _DeadlineSSLSocket(_DeadlineSocket, ssl.SSLSocket):
    pass


class _Connection(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        plain = self.sock
        timeout = plain.gettimeout()
        self.sock = _DeadlineSocket(fileno=plain.detach())
        self.sock.settimeout(timeout)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


def pool_manager(tls: Tls, *, max_connections: int, proxy: str | None) -> PoolManager:
    """Return connection pools that respect `until`."""
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.private_key)
    context.sslsocket_class = _DeadlineSSLSocket
    options: dict[str, Any] = {"maxsize": max_connections, "ssl_context": context}
    if proxy is None:
        manager = PoolManager(**options)
    else:
        proxy = proxy if "://" in proxy else f"http://{proxy}"
        auth = parse_url(proxy).auth
        proxy_headers = make_headers(proxy_basic_auth=auth) if auth else None
        manager = ProxyManager(proxy, proxy_headers=proxy_headers, **options)
    manager.pool_classes_by_scheme = {"http": _Pool, "https": HTTPSConnectionPool}
    return manager
