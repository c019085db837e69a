"""What machine a measurement ran on."""

import os
import platform
from pathlib import Path

__all__ = ["machine"]


def machine() -> str:
    """Processor and number of cores, for the line above a table."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass  # not Linux: the architecture has to do
    return f"{model}, {os.cpu_count()} cores"
