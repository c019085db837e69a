"""How to reach servers: addresses, TLS and headers, for every client alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["PLAIN", "Headers", "Security", "Tls", "address_list", "header_source"]

Headers = Mapping[str, str] | Callable[[], Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Transport security; files are PEM.

    Attributes:
        ca: Certificates to trust; None trusts the system's (gRPC: those that grpcio brings).
        certificate: The client's own certificate chain, for mutual TLS.
        private_key: Its key.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    private_key: str | Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("mutual TLS needs both certificate and private_key")
        for name in ("ca", "certificate", "private_key"):
            path = getattr(self, name)
            if path is not None and not Path(path).is_file():
                raise ValueError(f"{name}: no file {str(path)!r}")


def address_list(address: str | Sequence[str]) -> list[str]:
    """The addresses as a checked list.

    Raises:
        ValueError: There is none, or one is empty or has a space.
    """
    found = [address] if isinstance(address, str) else list(address)
    if not found:
        raise ValueError("give at least one address, such as '127.0.0.1:8500'")
    for one in found:
        if not isinstance(one, str) or not one.strip() or one != one.strip() or " " in one:
            raise ValueError(f"an address looks like 'host:8500', got {one!r}")
    return found


def header_source(headers: Headers | None) -> Callable[[], Mapping[str, str]]:
    """A function that gives the headers of the next request."""
    if headers is None:
        return dict
    if callable(headers):
        return headers
    fixed = dict(headers)
    for name, value in fixed.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ValueError(f"headers are strings, got {name!r}: {type(value).__name__}")
    return lambda: fixed


class Security(NamedTuple):
    """How to reach a server behind a proxy, as the clients' constructors take it."""

    tls: Tls | bool = False
    headers: dict[str, str] | None = None


PLAIN: Final = Security()  # neither TLS nor headers
