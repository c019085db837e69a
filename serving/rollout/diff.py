"""Differences between two versions: settings, metrics, candidates, answers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shortlist.clients import contract
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.golden import GoldenQuery
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.probe import read_corpus, read_probe
from shortlist.serving.servers.check import Asked, FreshServable, ask_in_fresh_process

__all__ = ["Change", "Overlap", "VersionDiff", "diff_versions"]

_SETTINGS = ("config", "index", "dataset", "top_k", "packages")
_NUMBERS = ("metrics",)


@dataclass(frozen=True, kw_only=True)
class Change:
    """Value that differs.

    Attributes:
        what: Dotted name within the manifest.
        before: Value in the first version; `None` if unset.
        after: Value in the second version; `None` if unset.
    """

    what: str
    before: Any
    after: Any


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Agreement of two versions' answers.

    Attributes:
        users: Number of users.
        k: Cutoff.
        mean: Mean share of the first version's top k that the second also returns.
        same_lists: Share of users with the same candidates in the same order.
    """

    users: int
    k: int
    mean: float
    same_lists: float


@dataclass(frozen=True, kw_only=True)
class VersionDiff:
    """Differences between two versions of a model.

    Attributes:
        name: Model name.
        versions: The two versions.
        settings: Changes in configuration, data, index and packages.
        metrics: Changes in metrics.
        added: Number of candidates that only the second has; `None` if one has no list.
        lost: Number of candidates that only the first has; `None` if one has no list.
        overlap: Agreement of the answers; `None` if there are none to compare.
        overlap_problem: Reason why `overlap` is `None`.
    """

    name: str
    versions: tuple[int, int]
    settings: tuple[Change, ...]
    metrics: tuple[Change, ...]
    added: int | None
    lost: int | None
    overlap: Overlap | None
    overlap_problem: str | None


def diff_versions(
    repository: ModelRepository,
    name: str,
    before: int,
    after: int,
    *,
    k: int = contract.DEFAULT_K,
    ask: bool = True,
) -> VersionDiff:
    """Compare two versions of a model.

    Args:
        repository: The model repository.
        name: Model name.
        before: First version.
        after: Second version.
        k: Cutoff of the overlap of answers.
        ask: Whether to load both versions and compare answers, which takes time and memory.

    Raises:
        RepositoryError: A version does not exist, or one of its files cannot be read.
        ModelServerError: The process that loads them failed.
    """
    old_manifest, new_manifest = (
        manifest.as_json() if (manifest := repository.manifest(name, version)) else {}
        for version in (before, after)
    )
    first, second = (repository.version_path(name, version) for version in (before, after))
    corpora = read_corpus(first), read_corpus(second)
    added = lost = None
    if corpora[0] is not None and corpora[1] is not None:
        old, new = set(corpora[0]), set(corpora[1])
        added, lost = len(new - old), len(old - new)
    overlap, problem = None, "not asked for"
    if ask:
        try:
            overlap, problem = _overlap(repository, name, (before, after), k), ""
        except RepositoryError as exc:
            problem = str(exc)
    return VersionDiff(
        name=name,
        versions=(before, after),
        settings=tuple(_changes(old_manifest, new_manifest, _SETTINGS)),
        # Lists, such as intervals and users by activity, repeat the same in detail.
        metrics=tuple(
            change
            for change in _changes(old_manifest, new_manifest, _NUMBERS)
            if not isinstance(change.before, list) and not isinstance(change.after, list)
        ),
        added=added,
        lost=lost,
        overlap=overlap,
        overlap_problem=problem or None,
    )


def _changes(
    before: Mapping[str, Any], after: Mapping[str, Any], parts: tuple[str, ...]
) -> Iterator[Change]:
    old = {key: value for part in parts for key, value in _flat(part, before.get(part))}
    new = {key: value for part in parts for key, value in _flat(part, after.get(part))}
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield Change(what=key, before=old.get(key), after=new.get(key))


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{prefix}.{key}", item)
    elif value is not None:
        yield prefix, value


def _overlap(repository: ModelRepository, name: str, versions: tuple[int, int], k: int) -> Overlap:
    paths = [repository.version_path(name, version) for version in versions]
    probes = [read_probe(path) for path in paths]
    users = sorted({user for probe in probes if probe is not None for user in probe.user_ids})
    if not users:
        raise RepositoryError("neither version has sample users to compare answers for")
    query = GoldenQuery(
        signature=contract.SERVING_DEFAULT, inputs={contract.USER_ID: users}, outputs={}
    )
    answers = ask_in_fresh_process(
        [
            Asked(name=name, version=version, path=path, queries=[query])
            for version, path in zip(versions, paths, strict=True)
        ]
    )
    old, new = (
        _rows(version, answer) for version, answer in zip(versions, answers.servables, strict=True)
    )
    shares = [
        len(set(before[:k]) & set(after[:k])) / max(1, len(before[:k]))
        for before, after in zip(old, new, strict=True)
    ]
    same = sum(before[:k] == after[:k] for before, after in zip(old, new, strict=True))
    return Overlap(
        users=len(users), k=k, mean=sum(shares) / len(users), same_lists=same / len(users)
    )


def _rows(version: int, answer: FreshServable) -> list[list[str]]:
    if answer.error is not None:
        raise RepositoryError(f"version {version} does not load: {answer.error}")
    outputs = answer.answers[0]
    if isinstance(outputs, str):
        raise RepositoryError(f"version {version} does not answer: {outputs}")
    rows: list[list[str]] = outputs[contract.CANDIDATE_IDS]
    return rows
