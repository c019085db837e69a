"""Thin REST and gRPC clients for retrieval models on TensorFlow Serving.

`import clients` alone loads neither grpc nor requests; the first use of a name does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clients._retry import RetryPolicy
    from clients.aio import AsyncGrpcClient
    from clients.connection import Tls
    from clients.errors import ServingError
    from clients.grpc import GrpcClient
    from clients.hooks import CallEvent
    from clients.protocol import RetrievalClient
    from clients.rest import RestClient
    from clients.split import Split
    from clients.types import Filter, Retrieval

__all__ = [
    "AsyncGrpcClient",
    "CallEvent",
    "Filter",
    "GrpcClient",
    "RestClient",
    "Retrieval",
    "RetrievalClient",
    "RetryPolicy",
    "ServingError",
    "Split",
    "Tls",
]

_HOMES = {
    "AsyncGrpcClient": "clients.aio",
    "CallEvent": "clients.hooks",
    "Filter": "clients.types",
    "GrpcClient": "clients.grpc",
    "RestClient": "clients.rest",
    "Retrieval": "clients.types",
    "RetrievalClient": "clients.protocol",
    "RetryPolicy": "clients._retry",
    "ServingError": "clients.errors",
    "Split": "clients.split",
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
