"""Differences between two versions: settings, metrics, candidates, answers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shortlist.clients import contract
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.probe import read_corpus
from shortlist.serving.repository.reference import VersionReference
from shortlist.serving.repository.version import Headline, Manifest, read_manifest
from shortlist.serving.rollout.queries import KnownQueries, common_requests, known_queries
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
        before: First version, such as `retrieval_ivf/1`.
        after: Second version.
        headlines: Headline metrics of both; `None` for a foreign SavedModel.
        settings: Changes in configuration, data, index and packages.
        metrics: Changes in other metrics.
        added: Number of candidates that only the second has; `None` if one has no list.
        lost: Number of candidates that only the first has; `None` if one has no list.
        overlap: Agreement of the answers; `None` if there are none to compare.
        overlap_problem: Reason why `overlap` is `None`.
    """

    before: str
    after: str
    headlines: tuple[Headline | None, Headline | None]
    settings: tuple[Change, ...]
    metrics: tuple[Change, ...]
    added: int | None
    lost: int | None
    overlap: Overlap | None
    overlap_problem: str | None


def diff_versions(
    before: VersionReference,
    after: VersionReference,
    *,
    k: int = contract.DEFAULT_K,
    ask: bool = True,
) -> VersionDiff:
    """Compare two versions, of one model or of two.

    Args:
        before: First version.
        after: Second version.
        k: Cutoff of the overlap of answers.
        ask: Whether to load both versions and compare answers, which takes time and memory.

    Raises:
        RepositoryError: A file of a version cannot be read.
        ModelServerError: The process that loads them failed.
    """
    manifests = [read_manifest(version.path) or Manifest() for version in (before, after)]
    old_manifest, new_manifest = (manifest.as_json() for manifest in manifests)
    corpora = read_corpus(before.path), read_corpus(after.path)
    added = lost = None
    if corpora[0] is not None and corpora[1] is not None:
        old, new = set(corpora[0]), set(corpora[1])
        added, lost = len(new - old), len(old - new)
    overlap, problem = None, "not asked for"
    if ask:
        try:
            overlap, problem = _overlap((before, after), k), ""
        except RepositoryError as exc:
            problem = str(exc)
    return VersionDiff(
        before=str(before),
        after=str(after),
        headlines=(manifests[0].headline, manifests[1].headline),
        settings=tuple(_changes(old_manifest, new_manifest, _SETTINGS)),
        # The headline stands apart; lists, such as intervals, repeat the same in detail.
        metrics=tuple(
            change
            for change in _changes(old_manifest, new_manifest, _NUMBERS)
            if not isinstance(change.before, list)
            and not isinstance(change.after, list)
            and not change.what.startswith("metrics.headline.")
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


def _overlap(versions: tuple[VersionReference, VersionReference], k: int) -> Overlap:
    known = [known_queries(version.path) for version in versions]
    requests = common_requests(known)
    if not requests:
        raise RepositoryError(
            "neither version has sample users or known queries to compare answers for"
        )
    answers = ask_in_fresh_process(
        [
            Asked(
                name=version.name,
                version=version.version,
                path=version.path,
                queries=[own.query(request) for request in requests],
            )
            for version, own in zip(versions, known, strict=True)
        ]
    )
    old, new = (
        _rows(version, own, answer)
        for version, own, answer in zip(versions, known, answers.servables, strict=True)
    )
    shares = [
        len(set(before[:k]) & set(after[:k])) / max(1, len(before[:k]))
        for before, after in zip(old, new, strict=True)
    ]
    same = sum(before[:k] == after[:k] for before, after in zip(old, new, strict=True))
    return Overlap(users=len(old), k=k, mean=sum(shares) / len(old), same_lists=same / len(old))


def _rows(version: VersionReference, known: KnownQueries, answer: FreshServable) -> list[list[str]]:
    if answer.error is not None:
        raise RepositoryError(f"{version} does not load: {answer.error}")
    rows: list[list[str]] = []
    for outputs in answer.answers:
        if isinstance(outputs, str):
            raise RepositoryError(f"{version} does not answer: {outputs}")
        if known.interface.ids not in outputs:
            raise RepositoryError(f"{version} does not retrieve candidates, as far as is known")
        rows += [[str(item) for item in row] for row in outputs[known.interface.ids]]
    return rows
