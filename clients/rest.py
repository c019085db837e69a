"""The client for TensorFlow Serving's REST API."""

import json
import threading
import time
from collections.abc import Sequence
from typing import Any

import requests

from shortlist.clients import contract, errors
from shortlist.clients._calls.call import Caller
from shortlist.clients._calls.failures import failure, too_late, unreachable
from shortlist.clients._calls.retry import RetryPolicy
from shortlist.clients._client import BlockingClient
from shortlist.clients._codecs.json import answer_of, body_of, path_of
from shortlist.clients._codecs.requests import Request
from shortlist.clients._engines.forks import generation
from shortlist.clients._engines.sockets import DeadlineAdapter, until
from shortlist.clients.connection import Headers, Limits, Tls, address_list, header_source
from shortlist.clients.hooks import Hook

__all__ = ["RestClient"]


def _base_url(address: str, *, secure: bool) -> str:
    if "://" not in address:
        address = f"{'https' if secure else 'http'}://{address}"
    scheme, _, rest = address.partition("://")
    if scheme not in ("http", "https") or not rest or rest.startswith(("/", ":")):
        raise ValueError(f"an address looks like 'http://host:8501', got {address!r}")
    return address.rstrip("/")


class _RestTransport:
    """One session, which keeps connections (a new one in a forked child)."""

    def __init__(
        self,
        urls: list[str],
        *,
        tls: Tls | bool,
        headers: Headers | None,
        max_connections: int,
        trust_env: bool,
    ) -> None:
        self._urls = urls
        self._tls = tls if isinstance(tls, Tls) else Tls()
        self._headers = header_source(headers)
        self._max_connections = max_connections
        self._trust_env = trust_env
        self._lock = threading.Lock()
        self._session: requests.Session | None = None
        self._born_in = generation()

    def send(self, request: Request, address: int, timeout: float | None) -> Any:
        url = self._urls[address]
        path = path_of(request)
        body = body_of(request)
        status, content = self._exchange(request, url, path, body, timeout)
        if status == 200:
            return answer_of(request, content)
        text = _error_text(content)
        raise failure(
            errors.error_class_for_http_status(status),
            request=request,
            address=url,
            status=f"HTTP {status}",
            text=text,
        )

    def _exchange(
        self, request: Request, url: str, path: str, body: bytes | None, timeout: float | None
    ) -> tuple[int, bytes]:
        headers = dict(self._headers())
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            with until(None if timeout is None else time.monotonic() + timeout):
                response = self._open_session().request(
                    "GET" if body is None else "POST",
                    url + path,
                    data=body,
                    headers=headers,
                    timeout=timeout,
                    allow_redirects=False,
                )
                return response.status_code, response.content
        except (requests.Timeout, TimeoutError) as exc:
            raise too_late(request=request, address=url, timeout=timeout) from exc
        except requests.exceptions.ChunkedEncodingError as exc:
            raise unreachable(
                request=request, address=url, reason=f"the answer broke off: {exc}"
            ) from exc
        except requests.ConnectionError as exc:
            if "timed out" in str(exc):
                raise too_late(request=request, address=url, timeout=timeout) from exc
            raise unreachable(request=request, address=url, reason=_reason(exc)) from exc
        except (requests.exceptions.ContentDecodingError, requests.exceptions.InvalidHeader) as exc:
            raise errors.ProtocolError(f"the answer of {url} is unreadable: {exc}") from exc
        except requests.RequestException as exc:
            raise ValueError(f"the request to {url + path} cannot be sent: {exc}") from exc

    def _open_session(self) -> requests.Session:
        session = self._session
        if session is not None and self._born_in == generation():
            return session
        with self._lock:
            if self._session is None or self._born_in != generation():
                # A child must not talk over its parent's connections.
                self._session, self._born_in = self._new_session(), generation()
            return self._session

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = self._trust_env
        adapter = DeadlineAdapter(pool_connections=16, pool_maxsize=self._max_connections)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        if self._tls.ca is not None:
            session.verify = str(self._tls.ca)
        if self._tls.certificate is not None:
            session.cert = (str(self._tls.certificate), str(self._tls.private_key))
        return session

    def close(self) -> None:
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()


def _error_text(content: bytes) -> str:
    """What the body says; TensorFlow Serving puts it under `error`, proxies send HTML."""
    try:
        body = json.loads(content)
        return str(body["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return content[:2000].decode("utf-8", "replace")


def _reason(exc: BaseException) -> str:
    """The innermost cause: `Connection refused` rather than urllib3's onion."""
    seen: BaseException = exc
    while True:
        inner = getattr(seen, "reason", None) or next(
            (arg for arg in seen.args if isinstance(arg, BaseException)), None
        )
        if not isinstance(inner, BaseException) or inner is seen:
            return str(seen)
        seen = inner


class RestClient(BlockingClient):
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
        trust_env: bool = False,
    ) -> None:
        """Prepare the client; opens no connection.

        Args:
            address: `host:port`, `http://…` or `https://…` with any path before `/v1`, or
                several of them, used in turns.
            model: Default model name of the calls.
            timeout: Default timeout of the calls in seconds, retries included. It does not
                cover a slow name server.
            retry: When failed calls are tried again.
            tls: `True` for TLS with the usual certificates, or a `Tls`. TensorFlow Serving's REST
                port has no TLS, but a proxy in front of it may.
            headers: Headers to send, such as `{"authorization": "Bearer …"}`, or a function
                that returns them for each request.
            hooks: Functions called with a `CallEvent` after each request.
            limits: Limits on calls, batches and connections.
            trust_env: Use `HTTP_PROXY`, `REQUESTS_CA_BUNDLE` and `.netrc`.

        Raises:
            ValueError: An argument is wrong.
        """
        urls = [_base_url(url, secure=tls is not False) for url in address_list(address)]
        caller = Caller(
            urls, "rest", model=model, timeout=timeout, retry=retry, hooks=hooks, limits=limits
        )
        transport = _RestTransport(
            urls,
            tls=tls,
            headers=headers,
            max_connections=caller.limits.max_connections,
            trust_env=trust_env,
        )
        super().__init__(transport, caller)
