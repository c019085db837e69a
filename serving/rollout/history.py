"""The append-only log of rollouts, in the repository."""

import getpass
import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shortlist.serving.errors import RolloutError

__all__ = ["History", "RecordedRollout", "Recorder"]

HISTORY_FILE = ".rollouts.jsonl"  # hidden: no poller and no listing takes it for a model


@dataclass(frozen=True, kw_only=True)
class RecordedRollout:
    """One rollout in the log.

    Attributes:
        records: Its records, oldest first, at least one.
    """

    records: Sequence[Mapping[str, Any]]

    @property
    def action(self) -> str:
        """What it did, such as `canary 2`."""
        first = self.records[0]
        version = first.get("version")
        if first.get("versions"):
            version = ", ".join(map(str, first["versions"]))
        return f"{first.get('action')}{'' if version is None else f' {version}'}"

    @property
    def outcome(self) -> str:
        """How it ended."""
        last = self.records[-1]
        return {"done": "done", "failed": f"failed: {last.get('error')}"}.get(
            str(last.get("event")), "interrupted, or running"
        )


@dataclass(frozen=True)
class History:
    """Log with one JSON record per line: who, when, what, states before and after, why.

    Attributes:
        path: The file; created by the first record.
    """

    path: Path

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record, whole or not at all.

        Raises:
            RolloutError: The file cannot be written.
        """
        line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                # A full disk or a crash may have cut off the last record.
                size = os.fstat(descriptor).st_size
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                data = (b"\n" if torn else b"") + line.encode()
                if os.write(descriptor, data) != len(data):
                    raise OSError(28, "No space left on device")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as exc:
            raise RolloutError(f"cannot write {self.path}: {exc.strerror}") from exc

    def read(self) -> list[dict[str, Any]]:
        """Return all complete records, oldest first; lines that a crash cut off are ignored."""
        if not self.path.is_file():
            return []
        records = []
        # JSON escapes newlines, but not the other separators at which `splitlines` splits.
        for line in self.path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                records.append(record)
        return records

    def rollouts(self) -> list["RecordedRollout"]:
        """Return all rollouts, oldest first."""
        rollouts: dict[str, list[dict[str, Any]]] = {}
        for record in self.read():
            rollouts.setdefault(str(record.get("id")), []).append(record)
        return [RecordedRollout(records=records) for records in rollouts.values()]

    def known_servers(self) -> list[str]:
        """Return the addresses of the servers in the last rollout of each servable."""
        latest: dict[str, list[str]] = {}
        for record in self.read():
            servers, name = record.get("servers"), record.get("servable")
            if isinstance(servers, list) and isinstance(name, str) and servers:
                latest[name] = [str(server) for server in servers]
        return sorted({server for servers in latest.values() for server in servers})

    def known_models(self) -> set[str]:
        """Return the names of all models that were ever rolled out."""
        return {str(record["servable"]) for record in self.read() if record.get("servable")}


class Recorder:
    """Write the records of one rollout, which share an id.

    The order of lines counts, so a jumping clock does no harm; times are for information.
    """

    def __init__(
        self, history: History, *, action: str, name: str, why: str, servers: list[str]
    ) -> None:
        self._history = history
        now = datetime.now(UTC)
        self.id = f"{now:%Y%m%dT%H%M%S}-{os.getpid()}-{os.urandom(2).hex()}"
        self._common = {
            "id": self.id,
            "who": f"{_user()}@{socket.gethostname()}",
            "action": action,
            "servable": name,
            "why": why,
            "servers": servers,
        }

    def record(self, event: str, **details: Any) -> None:
        """Add a record of this rollout."""
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._history.append({"when": when, "event": event, **self._common, **details})


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
