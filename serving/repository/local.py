"""The model repository on a file system: versions appear whole or not at all.

TensorFlow Serving's poller takes every folder of a base path whose name parses as an
integer, without looking inside. So a version is built under a name that does not parse, on
the same file system, flushed to disk, and renamed into place.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.files import (
    check_writable,
    file_lock,
    flush,
    flush_tree,
    write_atomically,
)
from shortlist.serving.repository.names import (
    MAX_VERSION,
    check_folder_name,
    check_model_name,
    parse_version,
)
from shortlist.serving.repository.version import Manifest, read_manifest

__all__ = ["ModelRepository", "Publisher"]

log = logging.getLogger(__name__)

STAGING_PREFIX = ".publishing-"
LAST_VERSION_FILE = ".last_version"
LOCK_FILE = ".publish.lock"
DEFAULT_LOCK_TIMEOUT = 60.0  # seconds
_SHOWN = 200  # characters of a path in a message
_NO_HIGHER = "delete it if no higher version than those on disk was ever published"


@dataclass(frozen=True)
class ModelRepository:
    """Folder with one base path per model: `<root>/<name>/<version>/`.

    Attributes:
        root: The folder; created by the first publisher if it is missing.

    Raises:
        RepositoryError: No folder can have this path.
    """

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))
        if "\0" in str(self.root):
            raise RepositoryError(f"{str(self.root)!r} is not a valid path: it contains NUL")

    def base_path(self, name: str) -> Path:
        """Return the folder of a model, which need not exist.

        Raises:
            RepositoryError: No folder can have the name, or it is hidden.
        """
        check_folder_name(name)
        return self.root / name

    def models(self) -> list[str]:
        """Return the sorted names of the models that have at least one version."""
        with _accessing(self.root, "read"):
            if not self.root.is_dir():
                return []
            folders = [entry.name for entry in self.root.iterdir() if entry.is_dir()]
        return sorted(name for name in folders if not name.startswith(".") and self.versions(name))

    def versions(self, name: str) -> list[int]:
        """Return the versions of a model that the server's poller sees, oldest first."""
        return sorted(self._folders(name))

    def version_path(self, name: str, version: int) -> Path:
        """Return the folder of a version.

        Raises:
            RepositoryError: The version does not exist.
        """
        folders = self._folders(name)
        if version not in folders:
            known = ", ".join(map(str, sorted(folders))) or "none"
            raise RepositoryError(
                f"no version {version} of {name!r} in {self.root}; versions there: {known}"
            )
        return folders[version]

    def manifest(self, name: str, version: int) -> Manifest | None:
        """Return the manifest of a version, or `None` for a foreign SavedModel.

        Raises:
            RepositoryError: The version does not exist, or its manifest cannot be read.
        """
        return read_manifest(self.version_path(name, version))

    def check_publishable(self, names: Sequence[str]) -> None:
        """Check that `publisher` can publish under these names, without changing anything.

        Another publisher, for which `publisher` waits, is only logged.

        Raises:
            RepositoryError: A name is not valid, a folder cannot be written or locked, or no
                version number is left.
        """
        for name in names:
            check_model_name(name)
        folders = [self.root, *map(self.base_path, names)]
        lock = self.root / LOCK_FILE
        with _accessing(self.root, "write to"):
            for folder in folders:
                check_writable(folder)
            try:
                if lock.exists():
                    with file_lock(lock, timeout=0):
                        pass
            except RepositoryError:
                log.warning(
                    "another publisher is at work in %s; this one will wait for it", self.root
                )
        self._next_version(names, at_least=1)

    @contextmanager
    def publisher(
        self,
        names: Sequence[str],
        *,
        at_least: int = 1,
        lock_timeout: float = DEFAULT_LOCK_TIMEOUT,
    ) -> Iterator["Publisher"]:
        """Publish servables under the same new version, as a context manager.

        Holds the repository's lock, so that two publishers never mix, and removes what killed
        publishers left behind. Leaving without `Publisher.publish` removes what was staged;
        the number is used up even then.

        Args:
            names: Model names, at least one.
            at_least: Lowest possible version.
            lock_timeout: Seconds to wait for another publisher.

        Raises:
            RepositoryError: A name is not valid, another publisher holds the lock, the folder
                is not writable, or no version number is left.
        """
        if not names:
            raise ValueError("names must hold at least one model name")
        for name in names:
            check_model_name(name)
        base_paths = {name: self.base_path(name) for name in names}
        with ExitStack() as stack:
            with _accessing(self.root, "write to"):
                for base_path in base_paths.values():
                    base_path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(file_lock(self.root / LOCK_FILE, timeout=lock_timeout))
                _remove_leftovers(self.root)
                version = self._next_version(names, at_least)
                for base_path in base_paths.values():
                    write_atomically(base_path / LAST_VERSION_FILE, f"{version}\n")
            publisher = Publisher(version=version, base_paths=base_paths, root=self.root)
            try:
                yield publisher
            finally:
                publisher.discard()

    def _folders(self, name: str) -> dict[int, Path]:
        """Return the folders that the poller sees by version; of `7` and `007` the former."""
        base_path = self.base_path(name)
        with _accessing(self.root, "read"):
            if not base_path.is_dir():
                return {}
            # In byte order the last one wins, as for the poller.
            entries = sorted(base_path.iterdir(), key=lambda entry: os.fsencode(entry.name))
            return {
                version: entry
                for entry in entries
                if (version := parse_version(entry.name)) is not None and entry.is_dir()
            }

    def _next_version(self, names: Sequence[str], at_least: int) -> int:
        version = max(at_least, *(1 + self._last_version(name) for name in names))
        if version > MAX_VERSION:
            raise RepositoryError(self._no_number_left(names))
        return version

    def _no_number_left(self, names: Sequence[str]) -> str:
        for name in names:
            for version, folder in self._folders(name).items():
                if version == MAX_VERSION:
                    return (
                        f"{folder} has the highest version number that a server reads, so the "
                        "next version cannot have a higher one; delete or rename that folder, "
                        f"then publish {name!r} again"
                    )
        return (
            f"no version number is left above {MAX_VERSION} for {', '.join(names)} in "
            f"{self.root}; publish under another model name"
        )

    def _last_version(self, name: str) -> int:
        """Return the highest version that this model ever had, or 0."""
        recorded = self.base_path(name) / LAST_VERSION_FILE
        last = 0
        if os.path.lexists(recorded):
            if not recorded.is_file():  # a pipe would block its reader
                raise RepositoryError(f"{recorded} is not a file; {_NO_HIGHER}")
            text = recorded.read_bytes()[:80].decode("utf-8", "replace").strip()
            version = parse_version(text)
            if version is None:
                raise RepositoryError(
                    f"{recorded} holds {text!r} instead of a version number; {_NO_HIGHER}"
                )
            last = version
        return max([last, *self.versions(name)])


@dataclass(kw_only=True)
class Publisher:
    """Publication in progress; see `ModelRepository.publisher`.

    Attributes:
        version: Version of all its servables, higher than any that one of them ever had, so
            that no version is reused.
        base_paths: Base path by model name.
        root: Folder of the model repository.
    """

    version: int
    base_paths: Mapping[str, Path]
    root: Path
    _staged: dict[str, Path] = field(default_factory=dict)

    def stage(self, name: str) -> Path:
        """Return an empty folder for a servable, invisible to the server's poller."""
        if name in self._staged:
            raise ValueError(f"{name!r} is staged already")
        prefix = f"{STAGING_PREFIX}{self.version}-"
        with _accessing(self.root, "write to"):
            staging = Path(tempfile.mkdtemp(prefix=prefix, dir=self.base_paths[name]))
        self._staged[name] = staging
        return staging

    def staged(self, name: str) -> Path:
        """Return the folder that `stage` returned for a servable.

        Raises:
            ValueError: Nothing was staged under this name.
        """
        if name not in self._staged:
            raise ValueError(f"{name!r} was not staged")
        return self._staged[name]

    def publish(self) -> dict[str, Path]:
        """Make every staged servable visible to the server, each by one rename, or none.

        Returns:
            Folder of the version by model name.

        Raises:
            RepositoryError: Nothing was staged, a staged folder has no `saved_model.pb`,
                the version's folder exists, or the repository cannot be written.
        """
        if not self._staged:
            raise RepositoryError("nothing was staged, so there is nothing to publish")
        targets = {name: self.base_paths[name] / str(self.version) for name in self._staged}
        for name, staging in self._staged.items():
            if not (staging / "saved_model.pb").is_file():
                raise RepositoryError(f"the staged servable {name!r} has no saved_model.pb")
            if os.path.lexists(targets[name]):
                raise RepositoryError(f"{targets[name]} exists; versions are never overwritten")
        with _accessing(self.root, "write to"):
            for staging in self._staged.values():
                _make_readable(staging)
                flush_tree(staging)
            renamed: list[tuple[Path, Path]] = []
            try:
                for name, staging in self._staged.items():
                    os.rename(staging, targets[name])
                    renamed.append((targets[name], staging))
                    flush(self.base_paths[name])
            except OSError:
                for target, staging in renamed:  # all of them, or none
                    os.rename(target, staging)
                raise
            self._staged.clear()
        for target in targets.values():
            log.info("published %s", target)
        return targets

    def discard(self) -> None:
        """Remove what was staged and not published."""
        for name in list(self._staged):
            shutil.rmtree(self._staged.pop(name), ignore_errors=True)


@contextmanager
def _accessing(root: Path, what: Literal["read", "write to"]) -> Iterator[None]:
    """Turn errors of the operating system into one line with the remedy."""
    try:
        yield
    except OSError as exc:
        name = str(exc.filename or root)
        known = name == str(root) or ".check-" in name  # a temporary file of ours says nothing
        where = "" if known else f" ({name[:_SHOWN]})"
        raise RepositoryError(
            f"cannot {what} the model repository {str(root)[:_SHOWN]}: "
            f"{exc.strerror or exc}{where}; choose another with --repository"
        ) from exc


def _remove_leftovers(root: Path) -> None:
    """Remove what killed publishers staged; the caller holds the lock, so none is in use."""
    removed = []
    for entry in sorted(root.glob("*/.*")):
        if not entry.name.startswith((f"{LAST_VERSION_FILE}.", STAGING_PREFIX)):
            continue
        try:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        except OSError as exc:
            log.warning("cannot remove %s, which a stopped publisher left behind: %s", entry, exc)
        else:
            removed += [str(entry)] if entry.name.startswith(STAGING_PREFIX) else []
    if removed:
        log.warning("removed what a stopped publisher left behind: %s", ", ".join(removed))


def _make_readable(folder: Path) -> None:
    """Let every user read: mkdtemp creates mode 0700, and containers run as another user."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
