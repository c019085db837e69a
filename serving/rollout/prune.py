"""Delete old versions that no server, label or configuration needs."""

import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from shortlist.serving.errors import RepositoryError, RolloutError
from shortlist.serving.repository.files import file_lock, flush
from shortlist.serving.repository.local import DEFAULT_LOCK_TIMEOUT, LOCK_FILE, ModelRepository
from shortlist.serving.rollout.apply import lock_path
from shortlist.serving.rollout.fleet import Fleet
from shortlist.serving.rollout.shards import ShardGroup, find_groups
from shortlist.serving.rollout.state import ServableState

__all__ = ["Decision", "decide", "keep_together", "prune", "remove_version"]

log = logging.getLogger(__name__)

PRUNED_PREFIX = ".pruned-"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether a version is deleted, and why.

    Attributes:
        name: Model name.
        version: Version.
        delete: Whether to delete it.
        why: Reason.
    """

    name: str
    version: int
    delete: bool
    why: str


def decide(
    state: ServableState, *, keep: int, ages: Mapping[int, float], grace: float
) -> list[Decision]:
    """Decide which versions to delete; pure.

    Args:
        state: State of the repository, the configuration and every server.
        keep: Number of newest versions to keep in any case, at least 1.
        ages: Seconds since each version was published; negative if a clock was set back,
            which counts as young.
        grace: Minimum age in seconds of a version to delete.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    newest = set(state.published[-keep:])
    return [
        Decision(
            name=state.name,
            version=version,
            delete=reason is None,
            why=reason or "no server holds it and no label points at it",
        )
        for version in state.published
        for reason in [_reason_to_stay(state, version, newest, keep, ages[version], grace)]
    ]


def _reason_to_stay(
    state: ServableState, version: int, newest: set[int], keep: int, age: float, grace: float
) -> str | None:
    for server in state.servers:
        if version in server.present:
            return f"{server.address} serves it"
        for label, at in server.labels.items():
            if at == version:
                return f"label {label!r} on {server.address}"
    if state.recorded is not None:
        for label, at in state.recorded.labels.items():
            if at == version:
                return f"label {label!r} in the configuration file"
        if version in (state.recorded.versions or ()):
            return "listed in the configuration file"
    if version in newest:
        return f"one of the newest {keep}"
    if age < grace:
        return f"younger than {grace:g} s"
    return None


def keep_together(decisions: Sequence[Decision], groups: Sequence[ShardGroup]) -> list[Decision]:
    """Keep a version of all shards if one needs it, so that it can still be rolled out; pure."""
    kept = {(own.name, own.version): own.why for own in decisions if not own.delete}
    group_of = {shard: group for group in groups for shard in group.shards}
    together = []
    for own in decisions:
        group = group_of.get(own.name)
        if own.delete and group is not None:
            for shard in group.shards:
                if (why := kept.get((shard, own.version))) is not None:
                    own = replace(own, delete=False, why=f"{shard} needs it: {why}")
                    break
        together.append(own)
    return together


def prune(
    fleet: Fleet,
    names: Sequence[str],
    *,
    keep: int,
    grace: float,
    dry_run: bool = False,
    lock_timeout: float = DEFAULT_LOCK_TIMEOUT,
) -> list[Decision]:
    """Delete versions that are not needed, and return the decisions.

    No publication or rollout runs meanwhile. A version disappears by one rename, so that no
    server sees a part of it.

    Args:
        fleet: Repository, configuration file and all known servers.
        names: Model names; a shard stands for all shards of its model.
        keep: Number of newest versions to keep in any case, at least 1.
        grace: Minimum age in seconds of a version to delete.
        dry_run: Whether to decide only.
        lock_timeout: Seconds to wait for a publication or a rollout.

    Raises:
        RolloutError: A known server does not answer, so its versions are unknown; or the
            configuration file lists no model, or lacks one that a server holds.
        RepositoryError: The repository is locked or cannot be written.
    """
    repository = fleet.repository
    decisions: list[Decision] = []
    with ExitStack() as stack:
        for path, by in _locks(fleet):
            if path.parent.is_dir():
                stack.enter_context(file_lock(path, timeout=lock_timeout, by=by))
        if fleet.config_file.path.exists():
            fleet.require_listed(names)
        groups = find_groups(repository.models())
        siblings = {shard: group.shards for group in groups for shard in group.shards}
        whole = [shard for name in names for shard in siblings.get(name, (name,))]
        for name in dict.fromkeys(whole):
            decisions += _decide_now(fleet, name, keep=keep, grace=grace)
        decisions = keep_together(decisions, groups)
        if not dry_run:
            for name in {decision.name for decision in decisions}:
                _remove_leftovers(repository.base_path(name))
            for decision in decisions:
                if decision.delete:
                    remove_version(repository, decision.name, decision.version)
    return decisions


def _locks(fleet: Fleet) -> Sequence[tuple[Path, str]]:
    return (
        (fleet.repository.root / LOCK_FILE, "publisher"),
        (lock_path(fleet), "rollout"),
    )


def _decide_now(fleet: Fleet, name: str, *, keep: int, grace: float) -> list[Decision]:
    observation = fleet.observe(name)
    if observation.unreachable:
        address, reason = next(iter(observation.unreachable.items()))
        raise RolloutError(
            f"{address} does not answer ({reason}), so the versions that it serves are unknown; "
            "bring it back, name the running servers (--address HOST:PORT), or confirm that "
            "none runs (--offline)"
        )
    now = time.time()
    ages = {
        version: now - fleet.repository.version_path(name, version).stat().st_mtime
        for version in observation.state.published
    }
    return decide(observation.state, keep=keep, ages=ages, grace=grace)


def remove_version(repository: ModelRepository, name: str, version: int) -> None:
    """Delete the folder of a version; the caller knows that it is not needed.

    Raises:
        RepositoryError: The version does not exist or cannot be deleted.
    """
    path = repository.version_path(name, version)
    hidden = path.with_name(f"{PRUNED_PREFIX}{version}-{os.urandom(4).hex()}")
    try:
        path.rename(hidden)
        flush(path.parent)
        shutil.rmtree(hidden)
    except OSError as exc:
        raise RepositoryError(f"cannot delete {path}: {exc.strerror}") from exc
    log.info("deleted %s", path)


def _remove_leftovers(base_path: Path) -> None:
    """Remove what an interrupted prune left behind."""
    for entry in base_path.iterdir():
        if entry.name.startswith(PRUNED_PREFIX):
            shutil.rmtree(entry)
