"""The client for TensorFlow Serving's REST API."""

import json
import netrc
import os
import re
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import urllib3
from urllib3 import exceptions

from shortlist.clients import contract, errors
from shortlist.clients._arguments import flag
from shortlist.clients._calls.call import Caller
from shortlist.clients._calls.failures import failure, too_late, unreachable
from shortlist.clients._calls.retry import RetryPolicy
from shortlist.clients._client import RetrievalClient
from shortlist.clients._codecs.json import answer_of, body_of, path_of
from shortlist.clients._codecs.requests import Request
from shortlist.clients._engines.bodies import BodyError, read_body
from shortlist.clients._engines.forks import generation
from shortlist.clients._engines.sockets import pool_manager, until
from shortlist.clients._printable import without_secrets
from shortlist.clients.connection import (
    Headers,
    Limits,
    Tls,
    address_list,
    checked_tls,
    header_source,
)
from shortlist.clients.hooks import Hook
from shortlist.clients.interface import RetrievalInterface

__all__ = ["RestClient"]

_MAX_ERROR_BYTES: Final = 1_000_000


def _base_url(address: str, *, secure: bool) -> str:
    if "://" not in address:
        address = f"{'https' if secure else 'http'}://{address}"
    scheme, _, rest = address.partition("://")
    if scheme not in ("http", "https") or not rest or rest.startswith(("/", ":")):
        raise ValueError(f"an address looks like 'http://host:8501', got {address!r}")
    if api := re.search(r"/v1(/models.*)?/?$", address):
        raise ValueError(
            f"an address ends before /v1, got {address!r}; use {address[: api.start()]!r}"
        )
    return address.rstrip("/")


class _RestTransport:
    """Connection pools for each address, created by the first call (again in a forked child)."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        tls: Tls | bool,
        headers: Headers | None,
        limits: Limits,
        trust_env: bool,
    ) -> None:
        self._urls = urls
        self._tls = tls if isinstance(tls, Tls) else Tls()
        self._headers = header_source(headers)
        self._max_connections = limits.max_connections
        self._max_answer_bytes = limits.max_answer_bytes
        self._trust_env = flag("trust_env", trust_env)
        self._lock = threading.Lock()
        self._managers: dict[int, urllib3.PoolManager] = {}
        self._born_in = generation()

    def send(self, request: Request, address: int, timeout: float | None) -> Any:
        url = self._urls[address]
        path, body = path_of(request), body_of(request)
        own = self._headers()
        if self._trust_env and "authorization" not in map(str.lower, own):
            own = {**own, **_netrc_headers(url)}
        status, content = self._exchange(request, address, path, body, own, timeout)
        if status == 200:
            return answer_of(request, content)
        kind, text = errors.error_class_for_http_status(status), _error_text(content)
        if kind is errors.ServableNotFound and text is None:
            kind = errors.ProtocolError  # the server of something else
        if text is None:
            text = content[:2000].decode("utf-8", "replace")
        raise failure(
            kind,
            request=request,
            address=url,
            status=f"HTTP {status}",
            text=without_secrets(text, own.values()),
        )

    def _exchange(
        self,
        request: Request,
        address: int,
        path: str,
        body: bytes | None,
        own: Mapping[str, str],
        timeout: float | None,
    ) -> tuple[int, bytes]:
        url = self._urls[address]
        headers = urllib3.HTTPHeaderDict({"Accept-Encoding": "gzip"})
        headers.update(own)
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            with until(None if timeout is None else time.monotonic() + timeout):
                response = self._manager(address).urlopen(
                    "GET" if body is None else "POST",
                    url + path,
                    body=body,
                    headers=headers,
                    timeout=timeout,
                    retries=False,
                    redirect=False,
                    preload_content=False,
                )
                return response.status, self._body(response, url)
        except exceptions.InvalidHeader as exc:
            raise errors.ProtocolError(f"the answer of {url} is unreadable: {exc}") from exc
        except (exceptions.LocationValueError, UnicodeError) as exc:
            reason = without_secrets(str(exc), ())  # it may be the URL of a proxy
            raise ValueError(f"the request to {url + path} cannot be sent: {reason}") from None
        except exceptions.HTTPError as exc:
            reason = _reason(exc)
            refused = isinstance(exc, exceptions.NewConnectionError)
            if (isinstance(exc, exceptions.TimeoutError) and not refused) or "timed out" in reason:
                raise too_late(request=request, address=url, timeout=timeout) from exc
            secure = url.startswith("https:")
            raise unreachable(request=request, address=url, tls=secure, reason=reason) from exc

    def _body(self, response: urllib3.BaseHTTPResponse, url: str) -> bytes:
        # A message needs few bytes, whatever the server sends with it.
        limit = self._max_answer_bytes if response.status == 200 else _MAX_ERROR_BYTES
        try:
            return read_body(response, limit)
        except BodyError as exc:
            response.close()
            if response.status != 200:
                return f"(the body {exc})".encode()
            raise errors.ProtocolError(f"the answer of {url} {exc}{exc.remedy}") from exc

    def _manager(self, address: int) -> urllib3.PoolManager:
        manager = self._managers.get(address)
        if manager is not None and self._born_in == generation():
            return manager
        with self._lock:
            if self._born_in != generation():
                # A child must not use its parent's connections.
                self._managers, self._born_in = {}, generation()
            if address not in self._managers:
                self._managers[address] = self._new_manager(self._urls[address])
            return self._managers[address]

    def _new_manager(self, url: str) -> urllib3.PoolManager:
        tls, proxy = self._tls, None
        if self._trust_env:
            bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
            if bundle and tls.ca is None:
                tls = Tls(ca=bundle, certificate=tls.certificate, private_key=tls.private_key)
            parts = urlsplit(url)
            if not urllib.request.proxy_bypass(parts.netloc):
                proxies = urllib.request.getproxies()
                proxy = proxies.get(parts.scheme) or proxies.get("all")
        return pool_manager(tls, max_connections=self._max_connections, proxy=proxy)

    def close(self) -> None:
        with self._lock:
            managers, self._managers = self._managers, {}
        for manager in managers.values():
            manager.clear()


def _error_text(content: bytes) -> str | None:
    """Return the message in a body of TensorFlow Serving; `None` if another server sent it."""
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _reason(exc: BaseException) -> str:
    """Return the innermost cause: `Connection refused` rather than urllib3's layers."""
    while True:
        inner = exc.__cause__ or next((a for a in exc.args if isinstance(a, BaseException)), None)
        if inner is None:
            return str(exc)
        exc = inner


def _netrc_headers(url: str) -> dict[str, str]:
    """Return the authorization of the host according to `.netrc`; empty if there is none."""
    try:
        entry = netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(url).hostname or "")
    except (OSError, netrc.NetrcParseError):
        return {}
    if entry is None:
        return {}
    return dict(urllib3.make_headers(basic_auth=f"{entry[0]}:{entry[2]}"))


class RestClient(RetrievalClient):
    """Client for the REST API.

    Connects at the first call and keeps connections. May be shared between threads.
    """

    def __init__(
        self,
        address: str | Sequence[str] = contract.DEFAULT_REST_ADDRESS,
        *,
        model: str = contract.DEFAULT_SERVABLE,
        timeout: float = contract.DEFAULT_TIMEOUT,
        retry: RetryPolicy | None = None,
        tls: Tls | bool = False,
        headers: Headers | None = None,
        hooks: Sequence[Hook] = (),
        limits: Limits | None = None,
        interface: RetrievalInterface | None = None,
        trust_env: bool = False,
    ) -> None:
        """Prepare the client, without connecting.

        Args:
            address: `host:port`, `http://…` or `https://…` with any path before `/v1`, or
                several of them, used in turn.
            model: Default model name of the calls.
            timeout: Default timeout of the calls in seconds, retries included. It does not
                cover a slow name server.
            retry: Retry policy; `None` for the default one.
            tls: `True` for TLS with the usual certificates, or a `Tls`. TensorFlow Serving's REST
                port has no TLS, but a proxy in front of it may.
            headers: Headers to send, such as `{"authorization": "Bearer …"}`, or a function
                that returns them for each request.
            hooks: Functions called with a `CallEvent` after each request.
            limits: Limits on calls, batches and connections.
            interface: Tensors by which `retrieve` and `embed` ask models that Shortlist did not
                export; `None` to find them.
            trust_env: Use the proxies of `http_proxy`, `https_proxy` and `all_proxy`, except for
                the hosts of `no_proxy`; `REQUESTS_CA_BUNDLE`; and `.netrc`.

        Raises:
            ValueError: An argument is wrong.
        """
        secure = checked_tls(tls) is not False
        urls = [
            _base_url(url, secure=secure)
            for url in address_list(address, port=contract.DEFAULT_REST_PORT)
        ]
        caller = Caller(
            urls,
            "rest",
            model=model,
            timeout=timeout,
            retry=retry,
            hooks=hooks,
            limits=limits,
            interface=interface,
        )
        transport = _RestTransport(
            urls,
            tls=tls,
            headers=headers,
            limits=caller.limits,
            trust_env=trust_env,
        )
        super().__init__(transport, caller)
