"""Model repositories on stores that cannot rename, such as `gs://` or `s3://`, through fsspec.

A folder of an object store exists as soon as one object in it does, so the server's poller
can see an incomplete version. Two things protect it: `saved_model.pb` is written last, so
that an incomplete version does not load; and servers whose configuration names the versions,
as rollouts do, ignore others.
"""

import logging
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.names import (
    MAX_VERSION,
    check_folder_name,
    check_model_name,
    parse_version,
)

__all__ = ["ObjectStore", "is_url"]

log = logging.getLogger(__name__)

SAVED_MODEL = "saved_model.pb"
CLAIMS = ".claims"  # one object per version ever claimed; does not parse as a version
_CLAIM = re.compile(r"pid (?P<pid>\d+) on (?P<machine>.*\(boot .*\))\n")


def is_url(repository: str) -> bool:
    """Return whether a repository is a URL rather than a path."""
    return "://" in repository


@dataclass(frozen=True)
class ObjectStore:
    """Model repository at a URL: `<url>/<name>/<version>/`.

    Attributes:
        url: Root, with any scheme that an installed fsspec package supports.
    """

    url: str

    def versions(self, name: str) -> list[int]:
        """Return the complete versions, oldest first."""
        system, base = self._at(name)
        return [
            version
            for version in self._folders(system, base)
            if system.exists(f"{base}/{version}/{SAVED_MODEL}")
        ]

    def claim(self, name: str, *, at_least: int = 1) -> int:
        """Return a version that no other publisher gets, ever.

        Removes the incomplete versions of publishers that were killed on this machine.

        Raises:
            RepositoryError: The name is not valid, the store cannot be written, or no version
                number is left.
        """
        check_model_name(name)
        system, base = self._at(name)
        claims = f"{base}/{CLAIMS}"
        try:
            self._remove_leftovers(system, base)
            system.makedirs(claims, exist_ok=True)
            taken = self._folders(system, base) + self._folders(system, claims)
            version = max([at_least, *(version + 1 for version in taken)])
            who = f"pid {os.getpid()} on {_machine()}\n".encode()
            while True:
                if version > MAX_VERSION:
                    raise RepositoryError(
                        f"{self.url}/{name}/{MAX_VERSION} has the highest version number that a "
                        "server reads, so the next version cannot have a higher one; delete it "
                        f"there and in {CLAIMS}, or publish under another model name"
                    )
                try:
                    system.pipe_file(f"{claims}/{version}", who, mode="create")
                except FileExistsError:
                    version += 1  # another publisher was faster
                else:
                    return version
        except OSError as exc:
            raise RepositoryError(f"cannot write to {self.url}: {exc}") from exc

    def publish(self, name: str, version: int, folder: Path) -> str:
        """Copy a SavedModel to where servers look for it, its graph last.

        A publisher that is killed leaves a version that does not load, until the next one on
        the same machine removes it; its number is never used again.

        Args:
            name: Model name.
            version: Version that `claim` returned.
            folder: Local folder of the SavedModel.

        Returns:
            URL of the version.

        Raises:
            RepositoryError: The version exists, or the store cannot be written.
        """
        system, base = self._at(name)
        target = f"{base}/{version}"
        if system.exists(target):
            raise RepositoryError(f"{self.url}/{name}/{version} exists; versions are immutable")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        last = folder / SAVED_MODEL
        if last not in files:
            raise RepositoryError(f"{folder} has no {SAVED_MODEL}")
        try:
            for path in [*(path for path in files if path != last), last]:
                copy = f"{target}/{path.relative_to(folder).as_posix()}"
                system.makedirs(copy.rpartition("/")[0], exist_ok=True)  # for file://
                system.put_file(str(path), copy)
        except OSError as exc:
            raise RepositoryError(
                f"cannot write {self.url}/{name}/{version}: {exc}; what is there does not load, "
                "publish again under the next number"
            ) from exc
        log.info("published %s/%s/%d", self.url, name, version)
        return f"{self.url.rstrip('/')}/{name}/{version}"

    def download(self, name: str, version: int, folder: Path) -> None:
        """Copy a version to an empty local folder.

        Raises:
            RepositoryError: The version does not exist or cannot be read.
        """
        if version not in self.versions(name):
            known = ", ".join(map(str, self.versions(name))) or "none"
            raise RepositoryError(
                f"no complete version {version} of {name!r} in {self.url}; versions there: {known}"
            )
        system, base = self._at(name)
        source = f"{base}/{version}"
        try:
            for path in system.find(source):
                target = folder / os.path.relpath(path, source)
                if ".." in target.relative_to(folder).parts:  # any name can be an object's
                    raise RepositoryError(f"{path} in {self.url} is not a file of a version")
                target.parent.mkdir(parents=True, exist_ok=True)
                system.get_file(path, str(target))
        except OSError as exc:
            raise RepositoryError(f"cannot read {self.url}/{name}/{version}: {exc}") from exc

    def stable(self, name: str) -> int | None:
        """Return the newest complete version, which is live by default."""
        return max(self.versions(name), default=None)

    def _at(self, name: str) -> tuple[Any, str]:
        check_folder_name(name)
        try:
            import fsspec
        except ImportError as exc:
            raise RepositoryError(
                f"{self.url} needs fsspec; install it with: pip install 'shortlist[export]'"
            ) from exc
        try:
            system, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as exc:
            raise RepositoryError(f"{self.url} cannot be opened: {exc}") from exc
        return system, f"{root.rstrip('/')}/{name}"

    def _remove_leftovers(self, system: Any, base: str) -> None:
        """Remove incomplete versions whose publisher ran on this machine and has ended.

        An object store has no locks, so a publisher elsewhere may still be at work.
        """
        removed = []
        for version in self._folders(system, base):
            claim = f"{base}/{CLAIMS}/{version}"
            if system.exists(f"{base}/{version}/{SAVED_MODEL}") or not system.exists(claim):
                continue
            publisher = _CLAIM.fullmatch(system.cat_file(claim).decode("utf-8", "replace"))
            if (
                publisher is not None
                and publisher["machine"] == _machine()
                and not Path("/proc", publisher["pid"]).exists()
            ):
                system.rm(f"{base}/{version}", recursive=True)
                removed.append(f"{self.url.rstrip('/')}/{Path(base).name}/{version}")
        if removed:
            log.warning("removed what a stopped publisher left behind: %s", ", ".join(removed))

    @staticmethod
    def _folders(system: Any, path: str) -> list[int]:
        """Return the versions among the names in a folder."""
        if not system.exists(path):
            return []
        system.invalidate_cache(path)
        names = (entry.rstrip("/").rsplit("/", 1)[-1] for entry in system.ls(path, detail=False))
        return sorted(version for name in names if (version := parse_version(name)) is not None)


def _machine() -> str:
    """Return what tells apart the process ids of machines, their restarts and containers."""
    host = socket.gethostname()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{host} (boot {boot}, {os.readlink('/proc/self/ns/pid')})"
    except OSError:  # not Linux: which processes live is not known
        return host
