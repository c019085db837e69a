"""Thin REST and gRPC clients for retrieval models on TensorFlow Serving.

`import clients` alone loads neither grpc nor requests; the first use of a name does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clients._retry import RetryPolicy
    from clients.connection import Tls
    from clients.errors import ServingError
    from clients.grpc import GrpcClient
    from clients.rest import RestClient
    from clients.types import Filter

__all__ = ["Filter", "GrpcClient", "RestClient", "RetryPolicy", "ServingError", "Tls"]

_HOMES = {
    "Filter": "clients.types",
    "GrpcClient": "clients.grpc",
    "RestClient": "clients.rest",
    "RetryPolicy": "clients._retry",
    "ServingError": "clients.errors",
    "Tls": "clients.connection",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clients' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
