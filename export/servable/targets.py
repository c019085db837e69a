"""Which ops the servers have that a servable may be meant for."""

from collections.abc import Collection
from typing import Final

from shortlist.export._tf import is_registered_op

__all__ = ["check_target"]

# Ops that a library adds are registered under a name space: `Scann>…`.
_NAMESPACE_MARK: Final = ">"


def check_target(target: str, servable: str, ops: Collection[str]) -> None:
    """Makes sure that a server can run a servable.

    Args:
        target: A name from `shortlist.export.config.TARGETS`.
        servable: What to call the servable in the error.
        ops: Ops that it uses.

    Raises:
        ValueError: The target lacks an op.
    """
    missing = sorted(op for op in ops if not _has(target, op))
    if missing:
        raise ValueError(
            f"{servable} needs the op {missing[0]!r}, which {target} does not have; "
            "choose other indexes with --index, or another --target"
        )


def _has(target: str, op: str) -> bool:
    if _NAMESPACE_MARK in op:
        return target == "embedded" and op.startswith("Scann>")
    # This package is pinned to the TensorFlow of the stock server, so its ops are known here.
    return is_registered_op(op)
