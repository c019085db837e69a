"""Thin REST and gRPC clients for retrieval models on TensorFlow Serving.

`import shortlist.clients` alone loads no transport; the first use of a client does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shortlist.clients._calls.retry import RetryPolicy
    from shortlist.clients._client import RetrievalClient
    from shortlist.clients.aio import AsyncGrpcClient
    from shortlist.clients.connection import Limits, Tls
    from shortlist.clients.errors import ServingError
    from shortlist.clients.grpc import GrpcClient
    from shortlist.clients.hooks import CallEvent
    from shortlist.clients.interface import RetrievalInterface
    from shortlist.clients.rest import RestClient
    from shortlist.clients.sharded.asyncio import AsyncShardedClient
    from shortlist.clients.sharded.blocking import ShardedClient
    from shortlist.clients.split import Split
    from shortlist.clients.types import Filter, Retrieval

__all__ = [
    "AsyncGrpcClient",
    "AsyncShardedClient",
    "CallEvent",
    "Filter",
    "GrpcClient",
    "Limits",
    "RestClient",
    "Retrieval",
    "RetrievalClient",
    "RetrievalInterface",
    "RetryPolicy",
    "ServingError",
    "ShardedClient",
    "Split",
    "Tls",
]

_HOMES = {
    "AsyncGrpcClient": "shortlist.clients.aio",
    "AsyncShardedClient": "shortlist.clients.sharded.asyncio",
    "CallEvent": "shortlist.clients.hooks",
    "Filter": "shortlist.clients.types",
    "GrpcClient": "shortlist.clients.grpc",
    "Limits": "shortlist.clients.connection",
    "RestClient": "shortlist.clients.rest",
    "Retrieval": "shortlist.clients.types",
    "RetrievalClient": "shortlist.clients._client",
    "RetrievalInterface": "shortlist.clients.interface",
    "RetryPolicy": "shortlist.clients._calls.retry",
    "ServingError": "shortlist.clients.errors",
    "ShardedClient": "shortlist.clients.sharded.blocking",
    "Split": "shortlist.clients.split",
    "Tls": "shortlist.clients.connection",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'shortlist.clients' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
