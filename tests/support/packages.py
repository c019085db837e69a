"""Stand-ins for what is installed."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError

__all__ = ["versions"]


def versions(**installed: str) -> Callable[[str], str]:
    """Return a stand-in for `importlib.metadata.version`; `_` in a name stands for `-`."""

    def version(name: str) -> str:
        try:
            return installed[name.replace("-", "_")]
        except KeyError:
            raise PackageNotFoundError(name) from None

    return version
