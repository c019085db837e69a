"""Two-tower retrieval models in production on TensorFlow Serving.

`shortlist.clients` queries model servers, `shortlist.serving` runs and updates them, and
`shortlist.export` trains and publishes what they serve. The clients' names are also here, and
`LocalClient`, which needs no server; each is loaded when it is first used: `import shortlist` alone
loads nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shortlist.clients import AsyncGrpcClient, Filter, GrpcClient, RestClient, Split
    from shortlist.serving.embedded.local import LocalClient

__all__ = ["AsyncGrpcClient", "Filter", "GrpcClient", "LocalClient", "RestClient", "Split"]

_HOMES = {"LocalClient": "shortlist.serving.embedded.local"}  # the others': the clients


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'shortlist' has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "shortlist.clients")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
