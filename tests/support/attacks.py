"""A server under attack, with a client beside the attack that must not notice it.

`python -m tests.support.attacks FOLDER` writes the models and prints the flags to serve them with;
`pytest tests/integration/attacks --attack GRPC_PORT:REST_PORT[:PID]` then attacks the server at
these ports instead of starting one. Its memory is measured only if its process is given.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shortlist.serving.embedded.runtime.sample_servables import sample_name
from shortlist.serving.repository.server_config import ModelEntry, render_config
from tests.soak.load import Load, Target
from tests.support.paths import ROOT
from tests.support.server_process import serving

__all__ = ["LARGE", "SMALL", "AttackedServer", "started_server", "write_models"]

SMALL = sample_name(1_000)  # what the client beside the attack asks
LARGE = sample_name(100_000)  # 6.4 million products and 400 kB of scores per row
_RATE = 20  # requests per second of the client beside the attack
_MEBI = 1 << 20


@dataclass(frozen=True, kw_only=True)
class AttackedServer:
    """A server that serves `SMALL` and `LARGE`.

    Attributes:
        grpc_port: Port of gRPC on loopback.
        rest_port: Port of REST on loopback.
        pid: The process; None if it was not started here.
    """

    grpc_port: int
    rest_port: int
    pid: int | None = None

    @contextmanager
    def attacked(
        self, *, seconds: float, memory_mib: float = 100.0, p99: float = 1.0
    ) -> Iterator[None]:
        """Check that what happens in this context harms no other client.

        A client asks REST and gRPC all the while: no request of it may fail or get a wrong
        answer.

        Args:
            seconds: Time limit of the attack.
            memory_mib: Maximum growth of the server's resident memory at any time.
            p99: Time in seconds within which 99 % of the client's requests are answered.
        """
        before = self._reset_peak()
        started = time.monotonic()
        target = Target(grpc_port=self.grpc_port, rest_port=self.rest_port, models=[SMALL])
        with Load(target, workers=2, rate=_RATE) as beside:
            while beside.outcome.requests < 4:  # it is connected
                time.sleep(0.02)
            yield
            took = time.monotonic() - started
            answered = len(beside.outcome.latencies)
            while len(beside.outcome.latencies) < answered + 4 and not beside.outcome.failures:
                time.sleep(0.02)  # it still gets answers
        outcome = beside.outcome
        assert outcome.failures == [], (
            f"{len(outcome.failures)} of {outcome.requests} failed: {outcome.failures[:3]}"
        )
        assert took < seconds, f"the attack took {took:.1f} s"
        assert outcome.percentile(0.99) < p99, (
            f"p50 {outcome.percentile(0.5):.3f} s, p99 {outcome.percentile(0.99):.3f} s"
        )
        grown = self._peak() - before
        assert grown < memory_mib, f"the server's memory grew from {before:.0f} by {grown:.0f} MiB"

    def wait_idle(self, *, within: float) -> None:
        """Wait until the server uses less than half of a processor; nothing if it is not ours."""
        if self.pid is None:
            return
        deadline = time.monotonic() + within
        while True:
            before = _cpu_seconds(self.pid)
            time.sleep(0.5)
            if _cpu_seconds(self.pid) - before < 0.25:
                return
            assert time.monotonic() < deadline, "the server still works"

    def _reset_peak(self) -> float:
        if self.pid is not None:
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self._peak()

    def _peak(self) -> float:
        """Return the highest resident memory since `_reset_peak`, in MiB."""
        if self.pid is None:
            return 0.0
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / _MEBI


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def write_models(folder: Path) -> list[str]:
    """Write the models and their configuration; return the flags to serve them with."""
    command = [sys.executable, "-m", "shortlist.serving.embedded.runtime.sample_servables"]
    sizes = [name.rpartition("_")[2] for name in (SMALL, LARGE)]
    subprocess.run([*command, folder, *sizes], check=True, cwd=ROOT, stderr=subprocess.DEVNULL)
    entries = {
        path.name: ModelEntry(versions=(1,), labels={"stable": 1})
        for path in sorted(folder.iterdir())
        if path.is_dir()
    }
    config = folder / "models.config"
    config.write_text(render_config(folder, entries))
    return [
        f"--model_config_file={config}",
        "--allow_version_labels_for_unavailable_models=true",
        "--rest_api_num_threads=8",
        "--grpc_max_threads=8",
    ]


@contextmanager
def started_server(folder: Path, *flags: str) -> Iterator[AttackedServer]:
    """Start an embedded server with these flags; it must still run at the end."""
    with serving(folder, *flags) as server:
        server.wait_open()
        yield AttackedServer(
            grpc_port=server.grpc_port, rest_port=server.rest_port, pid=server.process.pid
        )
        assert server.process.poll() is None, server.log[-3000:]
        assert "Traceback" not in server.log, server.log[-3000:]


if __name__ == "__main__":
    sys.stdout.write(" ".join(write_models(Path(sys.argv[1]).absolute())) + "\n")
