"""What the processor can do."""

from pathlib import Path

__all__ = ["multiplies_bfloat16"]

_CPUINFO = Path("/proc/cpuinfo")
_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


def multiplies_bfloat16(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether TensorFlow has instructions for bfloat16 here; false where nothing tells.

    Args:
        cpuinfo: Linux's description of the processor.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = (line.split(":", 1)[1].split() for line in lines if line.startswith("flags"))
    return not _FLAGS.isdisjoint(next(flags, []))
