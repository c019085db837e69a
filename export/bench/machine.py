"""Facts of the machine, and memory of a process and its children."""

import os
import platform
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

__all__ = ["PeakMemory", "machine", "peak_bytes", "resident_bytes"]

_INTERVAL: Final = 0.05  # seconds


def machine() -> str:
    """Processor and number of cores."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass  # not Linux: the architecture is enough
    return f"{model}, {os.cpu_count()} cores"


class PeakMemory:
    """Peak resident size of this process and its children together, by step.

    Pages that processes share, such as TensorFlow's code, count once for each. Without
    Linux' /proc everything is 0.

    Attributes:
        peaks: Bytes by step.
    """

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self._step: str | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def step(self, name: str | None) -> None:
        """End the current step and begin another one, or none."""
        with self._lock:
            self._note(peak_bytes())
            self._step = name
            _reset_highest()
            self._note(_tree_bytes(os.getpid()))

    def __enter__(self) -> Self:
        """Start watching."""
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop watching."""
        self.step(None)
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(_INTERVAL):
            size_bytes = _tree_bytes(os.getpid())
            with self._lock:
                self._note(size_bytes)

    def _note(self, size_bytes: int) -> None:
        if self._step is not None:
            self.peaks[self._step] = max(self.peaks.get(self._step, 0), size_bytes)


def resident_bytes(pid: int) -> int:
    """Resident size of a process; 0 if it has ended or cannot be read."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_bytes() -> int:
    """Highest resident size of this process alone, as recorded by the kernel."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _tree_bytes(pid: int) -> int:
    return sum(resident_bytes(process) for process in _tree(pid))


def _tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for thread in threads:
        try:
            children = Path(f"/proc/{pid}/task/{thread}/children").read_text(encoding="ascii")
        except OSError:
            continue
        for child in children.split():
            yield from _tree(int(child))


def _reset_highest() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
