"""The files of `docker/` that run Shortlist in containers: where they are, and copies of them."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shortlist.serving.errors import ModelServerError

__all__ = ["COMPOSE_FILE", "INSTALLED", "docker_folder", "write_docker_files"]

COMPOSE_FILE: Final = "compose.yaml"
# What is not needed to build images; `pyproject.toml` puts the same into the wheel.
_FILES: Final = (
    COMPOSE_FILE,
    "request_log.yaml",
    "jobs",
    "server",
    "proxy/make_credentials.sh",
    "proxy/nginx.conf",
    "monitoring",
    "kubernetes",
)
_HERE: Final = Path(__file__).resolve()
INSTALLED: Final = _HERE.parent / "docker"  # in a wheel
_NAMED: Final = 3  # files in a message


def docker_folder() -> Path:
    """Return a checkout's `docker/`, else the copy that is installed with this package.

    Raises:
        ModelServerError: The folder is in neither place.
    """
    for folder in (_HERE.parents[2] / "docker", INSTALLED):
        if (folder / COMPOSE_FILE).is_file():
            return folder
    raise ModelServerError(
        "docker/compose.yaml is missing from this installation; reinstall shortlist, "
        "or use --server embedded"
    )


def write_docker_files(target: Path, *, force: bool = False) -> list[Path]:
    """Copy the files into a folder, which is created if missing.

    Args:
        target: Folder for `compose.yaml` and the folders next to it.
        force: Whether to replace files with other contents.

    Returns:
        The files of the folder, sorted, relative to it.

    Raises:
        ModelServerError: A file with other contents exists; nothing was written.
        OSError: The folder is not writable.
    """
    source = docker_folder()
    files = sorted(_files(source))
    changed = [str(file) for file in files if _differs(source / file, target / file)]
    if changed and not force:
        more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        raise ModelServerError(
            f"{target} has other contents in {', '.join(changed[:_NAMED])}{more}; "
            "--force replaces these files"
        )
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / file, target / file)  # with its mode: some are programs
    return files


def _files(source: Path) -> Iterator[Path]:
    for name in _FILES:
        path = source / name
        for file in path.rglob("*") if path.is_dir() else (path,):
            if file.is_file() and "__pycache__" not in file.parts:
                yield file.relative_to(source)


def _differs(source: Path, target: Path) -> bool:
    return target.exists() and (not target.is_file() or target.read_bytes() != source.read_bytes())
