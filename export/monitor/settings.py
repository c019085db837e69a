"""What to monitor, and how; imports nothing heavy."""

from dataclasses import dataclass, field
from pathlib import Path

from shortlist.clients.contract import DEFAULT_K
from shortlist.clients.request_log.user_ids import UserIds
from shortlist.export.data.config import DataConfig

__all__ = ["MonitorSettings"]


@dataclass(frozen=True, kw_only=True)
class MonitorSettings:
    """Logs, interactions, and how they are joined.

    Attributes:
        logs: Files, folders and patterns of request logs.
        reference: Earlier request logs that scores and histories are compared with; empty for
            the manifests of the versions.
        interactions: What users did; `None` without hit and click rates.
        users: Data whose `users_file` has the segments; `None` for known and unknown users.
        segment_column: Column of that file.
        key: Key with which the log's user ids are hashed; `None` if they are not.
        repository: Model repository, for the age, corpus and reference of versions.
        models: Model names; empty for all.
        window: Seconds after a list in which interactions count.
        last: Seconds up to now of the log to read; `None` for all.
        k: Cut-off of the hit rate.
        every: Seconds between two rounds; `None` for a single one.
    """

    logs: tuple[str, ...]
    reference: tuple[str, ...] = ()
    interactions: DataConfig | None = None
    users: DataConfig | None = None
    segment_column: str | None = None
    key: bytes | None = field(default=None, repr=False)
    repository: Path = Path("models")
    models: frozenset[str] = frozenset()
    window: float = 86_400.0
    last: float | None = None
    k: int = DEFAULT_K
    every: float | None = None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}")
        if self.key is not None:
            UserIds(ids="hash", key=self.key)  # checks its length
        if (self.users is None) != (self.segment_column is None):
            raise ValueError(
                "--users and --segment-column belong together: the file of the users, and its "
                "column with their segment"
            )
