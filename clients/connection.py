"""Addresses, TLS, headers and limits, the same for every client."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Final, NamedTuple

from shortlist.clients._arguments import seconds, shown, whole
from shortlist.clients.contract import UNLOGGED

__all__ = [
    "PLAIN",
    "Headers",
    "Limits",
    "Security",
    "Tls",
    "address_list",
    "checked_tls",
    "header_source",
]

_HEADERS: Final = "{'authorization': 'Bearer …'}"
_HEADER_NAME: Final = re.compile(r"[\w.-]+(?<!-bin)", re.ASCII)  # what gRPC can send
_VALUES: Final = "a header's value is not shown, as it may be a secret"
_UP_TO_USER: Final = re.compile(r"(\w+://)?.*@", re.DOTALL)

_BARE_IPV6: Final = re.compile(r"[\da-fA-F]*:[\da-fA-F]*:[\da-fA-F.:]*")
_PORT: Final = re.compile(
    r"(?:https?://)?(?!unix|dns:|vsock)(?:[^:/[\]]+|\[[^]]+\]):([^:/]+)(?:/.*)?"
)

Headers = Mapping[str, str] | Callable[[], Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Transport security; files are PEM.

    Attributes:
        ca: Certificates to trust; `None` for the system's (gRPC: those of grpcio).
        certificate: The client's own certificate chain, for mutual TLS.
        private_key: Private key for `certificate`.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    private_key: str | Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("mutual TLS needs both certificate and private_key")
        for name in ("ca", "certificate", "private_key"):
            path = getattr(self, name)
            if path is not None and not isinstance(path, str | PathLike):
                raise ValueError(f"{name} must be a path, got {shown(path)}")
            if path is not None and not Path(path).is_file():
                raise ValueError(f"{name}: no file {str(path)!r}")
        if self.ca is not None or self.certificate is not None:
            _check_pem(self)


def _check_pem(tls: Tls) -> None:
    import ssl  # only for those who need it, as it takes milliseconds

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    problem = f"ca: no PEM certificates in {str(tls.ca)!r}"
    try:
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
        problem = (
            f"certificate, private_key: {str(tls.certificate)!r} and {str(tls.private_key)!r} are "
            "not a PEM certificate and its key without a password"
        )
        if tls.certificate is not None:
            # With no password at all, OpenSSL would ask for one on the terminal.
            context.load_cert_chain(tls.certificate, tls.private_key, password="")
    except OSError as exc:  # such as ssl.SSLError
        raise ValueError(f"{problem} ({exc})") from exc


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one client.

    Attributes:
        max_in_flight: Concurrent calls; another one fails at once with `TooManyInFlight`.
            `None` for no limit.
        batch_size: Users (or candidates, or pairs) in one request; larger batches are split.
        parallel: Concurrent requests of one split batch.
        max_connections: Connections kept to each server (REST).
        max_answer_bytes: Bytes of one answer, unzipped. A larger one is a `ProtocolError`, so that
            a server cannot fill the client's memory; JSON of many small values takes up to 15
            times as much.
        keepalive: Seconds between pings (gRPC); `None` for no pings. Unless configured
            otherwise, servers disconnect clients that ping more often than every 300 s.
    """

    max_in_flight: int | None = None
    batch_size: int = 1000
    parallel: int = 4
    max_connections: int = 32
    max_answer_bytes: int = 64 * 2**20
    keepalive: float | None = 300.0

    def __post_init__(self) -> None:
        for name in (
            "max_in_flight",
            "batch_size",
            "parallel",
            "max_connections",
            "max_answer_bytes",
        ):
            value = getattr(self, name)
            if name == "max_in_flight" and value is None:
                continue
            whole(name, value, least=1)
        if self.keepalive is not None and seconds("keepalive", self.keepalive) == math.inf:
            raise ValueError("keepalive must be finite, got inf; for no pings use None")


def address_list(address: str | Sequence[str], *, port: int) -> list[str]:
    """Return the addresses as a list.

    Args:
        address: What the user passed.
        port: Usual port, for messages.

    Raises:
        ValueError: There are none, or an address is empty, or contains a space or a user.
    """
    if not isinstance(address, str) and not isinstance(address, Iterable):
        raise ValueError(f"an address looks like 'host:{port}', got {shown(address)}")
    addresses = [address] if isinstance(address, str) else list(address)
    if not addresses:
        raise ValueError(f"pass at least one address, such as '127.0.0.1:{port}'")
    for entry in addresses:
        if isinstance(entry, str) and "@" in entry and not entry.startswith("unix"):
            place = _UP_TO_USER.sub(r"\1", entry)
            raise ValueError(
                f"an address has no user and no password (before {place!r}); pass them as a "
                "header: headers=urllib3.make_headers(basic_auth='USER:PASSWORD'), or --header "
                "authorization='Basic ...'"
            )
        if not isinstance(entry, str) or entry.split() != [entry]:
            raise ValueError(f"an address looks like 'host:{port}', got {shown(entry)}")
        if _BARE_IPV6.fullmatch(entry):
            raise ValueError(
                f"an IPv6 address has brackets, as in '[::1]:{port}'; got {shown(entry)}"
            )
        given = _PORT.fullmatch(entry)
        if given and not (given[1].isdecimal() and 0 < int(given[1]) < 2**16):
            raise ValueError(f"{given[1]!r} is not a port (1 to 65535) in {shown(entry)}")
    return addresses


def checked_tls(tls: object) -> Tls | bool:
    """Return the TLS settings.

    Raises:
        ValueError: They are neither a bool nor a `Tls`.
    """
    if isinstance(tls, bool | Tls):
        return tls
    remedy = f"; use Tls(ca={tls!r})" if isinstance(tls, str | Path) else ""
    raise ValueError(f"tls must be True, False or a Tls, got {shown(tls)}{remedy}")


def header_source(headers: Headers | None) -> Callable[[], Mapping[str, str]]:
    """Return a function that returns the headers of the next request.

    Raises:
        ValueError: `headers` is neither a function nor a mapping of what both transports can send.
            Values are not shown.
    """
    if headers is None:
        return dict
    if callable(headers):
        return lambda: _checked_headers(headers())
    fixed = _checked_headers(headers)
    return lambda: fixed


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        raise ValueError(
            f"headers takes a mapping such as {_HEADERS}, got a {type(headers).__name__}"
        )
    checked = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            # A whole line, such as `Authorization: Bearer …`, has its secret at the end.
            start = _HEADER_NAME.match(name) if isinstance(name, str) else None
            raise ValueError(
                f"a header's name has letters, digits, '-', '_' and '.', and does not end in "
                f"-bin; one that starts with {start[0] if start else ''!r} cannot be sent"
            )
        checked[str.__str__(name)] = _checked_value(name, value)
    return checked


def _checked_value(name: str, value: object) -> str:
    if not isinstance(value, str):
        remedy = "; use its decode()" if isinstance(value, bytes) else ""
        raise ValueError(f"header {name!r} must be a string, got {type(value).__name__}{remedy}")
    if not value:
        raise ValueError(f"header {name!r} must be a non-empty string, got ''")
    if not (value.isascii() and value.isprintable() and value == value.strip()):
        remedy = "; use its strip()" if value.strip().isprintable() and value.isascii() else ""
        raise ValueError(
            f"header {name!r} cannot be sent: its value of {len(value)} characters has others than "
            f"printable ASCII, or spaces at an end{remedy} ({_VALUES})"
        )
    return str.__str__(value)


class Security(NamedTuple):
    """TLS, headers and proxies, as keywords of the clients' constructors."""

    tls: Tls | bool = False
    headers: dict[str, str] | None = None
    trust_env: bool = False

    def unlogged(self) -> "Security":
        """Return the same for requests that are not users', which request logs leave out."""
        return self._replace(headers={**(self.headers or {}), UNLOGGED: "1"})

    def __repr__(self) -> str:
        """Return the fields, with the names of the headers only."""
        names = None if self.headers is None else sorted(self.headers)
        return f"Security(tls={self.tls!r}, headers={names}, trust_env={self.trust_env})"


PLAIN: Final = Security()  # neither TLS, headers nor proxies
