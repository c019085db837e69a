"""Check that a server has the ops of a servable."""

from collections.abc import Collection

from shortlist.export.config import SCANN_NAMESPACE
from shortlist.serving.installed import tensorflow_version
from shortlist.serving.repository.version import find_custom_ops

__all__ = ["check_target"]

_STOCK = "stock-"


def check_target(target: str | None, servable: str, ops: Collection[str]) -> None:
    """Check that a server can run a servable.

    Args:
        target: Name from `shortlist.export.config.TARGETS`, or None for any server.
        servable: Name of the servable for the error.
        ops: Ops that the servable uses.

    Raises:
        ValueError: The target lacks an op, or is older than the installed TensorFlow.
    """
    if target is not None and target.startswith(_STOCK):
        _check_stock_version(target)
    missing = [] if target is None else sorted(op for op in ops if not _has(target, op))
    if missing:
        raise ValueError(
            f"{servable} needs the op {missing[0]!r}, which {target} does not have; "
            "choose other indexes with --index, or another --target"
        )


def _check_stock_version(target: str) -> None:
    server = target.removeprefix(_STOCK)
    installed = tensorflow_version()
    if installed is not None and _minor(installed) > _minor(server):
        raise ValueError(
            f"TensorFlow {installed} writes graphs that {target} may not read; install "
            f"TensorFlow {server} and tf-keras {server}, or choose another --target"
        )


def _minor(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))


def _has(target: str, op: str) -> bool:
    if find_custom_ops([op]):
        return target == "embedded" and op.startswith(f"{SCANN_NAMESPACE}>")
    # Custom ops can be checked without TensorFlow.
    from shortlist.export._tf import is_registered_op

    # The stock server is at least as new as the TensorFlow here, so it has its ops.
    return is_registered_op(op)
