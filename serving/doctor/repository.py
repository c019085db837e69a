"""Checks of a model repository: what a server would not load, and what its configuration breaks."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from shortlist.serving.doctor.check import Check, ok, problem, warning
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import CONFIG_FILE, read_config
from shortlist.serving.rollout.lint import Severity, lint
from shortlist.serving.rollout.versions import list_versions

__all__ = ["check_repository"]


def check_repository(root: Path, *, named: bool) -> Iterator[Check]:
    """Yield the checks of a repository.

    Args:
        root: The repository.
        named: Whether the user named it; otherwise it may be missing.
    """
    name = "repository"
    if not root.is_dir():
        export = f"shortlist export --data sample --repository {root}"
        if named:
            yield problem(name, f"{root} is not a folder", f"name another, or publish: {export}")
        else:
            yield ok(name, f"none at {root}; --repository names another")
        return
    try:
        yield from _checks(name, root)
    except RepositoryError as exc:
        found, _, remedy = str(exc).partition("; ")
        yield problem(name, found, remedy or "mend or remove it")


def _checks(name: str, root: Path) -> Iterator[Check]:
    repository = ModelRepository(root)
    config = root / CONFIG_FILE
    rows, _ = list_versions(repository, repository.models(), config_path=config, servers=())
    models = len(repository.models())
    found = f"{root}: {len(rows)} versions of {models} model{'' if models == 1 else 's'}"
    yield (
        ok(name, found)
        if rows
        else warning(
            name, found, f"publish one: shortlist export --data sample --repository {root}"
        )
    )
    for row in rows:
        if row.problem is not None:
            yield problem(
                name,
                f"{row.name}/{row.version}: {row.problem}",
                "publish it again; delete this",
            )
    now = datetime.now(UTC).isoformat(timespec="seconds")  # the form of `created`
    if late := [row for row in rows if row.created > now]:
        yield warning(
            name,
            f"{late[0].name}/{late[0].version} was published in the future ({late[0].created})",
            "compare this machine's clock with that of the publisher",
        )
    if not config.exists():
        return
    # `shortlist serve` keeps this file and sets the flag for labels.
    for finding in lint(read_config(config), repository=repository, labels_flag=True):
        make = problem if finding.severity is Severity.ERROR else warning
        where = f"{finding.model}: " if finding.model is not None else ""
        yield make("configuration", where + finding.problem, finding.remedy)
