"""Check that a server has the ops of a servable."""

from collections.abc import Collection

from shortlist.serving.repository.version import find_custom_ops

__all__ = ["SCANN_NAMESPACE", "check_target"]

SCANN_NAMESPACE = "Scann"


def check_target(target: str | None, servable: str, ops: Collection[str]) -> None:
    """Check that a server can run a servable.

    Args:
        target: Name from `shortlist.export.config.TARGETS`, or None for any server.
        servable: Name of the servable for the error.
        ops: Ops that the servable uses.

    Raises:
        ValueError: The target lacks an op.
    """
    missing = [] if target is None else sorted(op for op in ops if not _has(target, op))
    if missing:
        raise ValueError(
            f"{servable} needs the op {missing[0]!r}, which {target} does not have; "
            "choose other indexes with --index, or another --target"
        )


def _has(target: str, op: str) -> bool:
    if find_custom_ops([op]):
        return target == "embedded" and op.startswith(f"{SCANN_NAMESPACE}>")
    # Custom ops can be checked without TensorFlow.
    from shortlist.export._tf import is_registered_op

    # This package is pinned to the TensorFlow of the stock server, so its ops are known here.
    return is_registered_op(op)
