"""Candidates that were removed from a model, and must not come back with older data."""

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.files import file_lock, write_atomically
from shortlist.serving.repository.names import check_model_name

__all__ = ["RemovedList"]

_LOCK_TIMEOUT = 30.0  # seconds


@dataclass(frozen=True)
class RemovedList:
    """The file of removed ids in a model repository, one JSON object per line.

    Attributes:
        root: Folder of the repository.
        model: Model that servables belong to, such as `retrieval`.
    """

    root: Path
    model: str

    @property
    def path(self) -> Path:
        """Path of the file, which is missing if nothing was removed."""
        check_model_name(self.model)
        return Path(self.root) / f".removed-{self.model}.jsonl"

    def ids(self) -> list[str]:
        """Return the removed ids, earliest first.

        Raises:
            RepositoryError: The file cannot be read.
        """
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
            return list(dict.fromkeys(str(json.loads(line)["id"]) for line in lines))
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise RepositoryError(
                f"{self.path} cannot be read ({exc!r}); restore it, because it keeps removed "
                "candidates out"
            ) from exc

    @contextmanager
    def changed(self, *, add: Sequence[str], allow: Collection[str]) -> Iterator[None]:
        """Change the list as `change` does, and take that back if the block fails."""
        known = self.ids()
        self.change(add=add, allow=allow)
        try:
            yield
        except BaseException:
            self.change(
                add=[key for key in known if key in allow],
                allow={key for key in add if key not in known},
            )
            raise

    def change(self, *, add: Sequence[str] = (), allow: Collection[str] = ()) -> None:
        """Add ids, and allow others again; nothing is written if nothing changes.

        Raises:
            RepositoryError: The file cannot be read or written.
        """
        if not add and not (set(allow) & set(self.ids())):
            return
        try:
            with file_lock(self.path.with_suffix(".lock"), timeout=_LOCK_TIMEOUT):
                known = self.ids()
                stored = self.path.read_text(encoding="utf-8") if known else ""
                kept = [line for line in stored.splitlines() if json.loads(line)["id"] not in allow]
                when = datetime.now(UTC).isoformat(timespec="seconds")
                new = [key for key in dict.fromkeys(add) if key not in known]
                kept += [json.dumps({"id": key, "when": when}, ensure_ascii=False) for key in new]
                write_atomically(self.path, "".join(f"{line}\n" for line in kept))
        except OSError as exc:
            raise RepositoryError(f"cannot write {self.path}: {exc.strerror or exc}") from exc
