"""Embeddings of the corpus after an update."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from shortlist.export.data.change import CorpusChange
from shortlist.export.data.config import DataError
from shortlist.export.data.histories import KeptEvents
from shortlist.export.data.sources.tabular import CandidateRows
from shortlist.export.own.tables import OwnTable
from shortlist.export.own.vectors import EMBEDDING_COLUMN
from shortlist.export.towers.stored.query_tower import StoredQueryTower
from shortlist.export.towers.trained import embed_after, embed_kept
from shortlist.export.update.changes import LIKE_COLUMN, positions_of
from shortlist.export.update.corpus import NextCorpus
from shortlist.export.update.events import EventsSince
from shortlist.export.update.newcomers import Newcomers, Source, Takers, newcomer_rows
from shortlist.export.update.parent import Parent

__all__ = ["CorpusRows", "embeddings_after"]

Vectors = npt.NDArray[np.float32]

_USERS = 500  # whose lists new candidates must reach


@dataclass(frozen=True, kw_only=True, eq=False)
class CorpusRows:
    """Embeddings of a corpus after an update.

    Attributes:
        embeddings: Float32 `[num_candidates, d]`.
        replaced: Int64 `[m]`, positions before of known candidates with another embedding.
        sources: Number of new candidates by what their embeddings follow from.
    """

    embeddings: Vectors
    replaced: npt.NDArray[np.int64]
    sources: Mapping[str, int]


def embeddings_after(
    parent: Parent,
    corpus: NextCorpus,
    source: CandidateRows | None,
    since: EventsSince,
    *,
    seed: int,
) -> CorpusRows:
    """Return the embeddings of a corpus after an update.

    Args:
        parent: Parent version.
        corpus: Candidates after it.
        source: File of candidates, if there is one.
        since: Events since.
        seed: Seed of the users whose lists new candidates must reach.

    Raises:
        DataError: An embedding does not fit, or a row is like an unknown candidate.
    """
    change, before = corpus.change, parent.embeddings
    replaced = np.empty(0, np.int64)
    if source is None:
        return CorpusRows(embeddings=before[change.kept], replaced=replaced, sources={})
    given = _given(source, parent)
    if given is not None:
        position = positions_of(source.ids, parent.catalogue.ids)
        known = np.flatnonzero((position >= 0) & np.isfinite(given[:, 0]))
        same = np.isclose(before[position[known]], given[known], rtol=1e-5, atol=1e-6)
        known = known[~same.all(axis=1)]
        replaced = position[known]
        before = before.copy()
        before[replaced] = given[known]
    if not len(corpus.new):
        return CorpusRows(embeddings=before[change.kept], replaced=replaced, sources={})
    like = _like(source, parent.catalogue.ids)[corpus.new]
    # One that goes can still be a model, so embeddings are looked up before the change.
    alike = np.where(like[:, None] >= 0, before[like], np.float32(np.nan))
    own = np.full_like(alike, np.nan) if given is None else given[corpus.new]
    new = _new_rows(parent, corpus, since, own, alike, seed)
    return CorpusRows(
        embeddings=change.rows(before, new.rows),
        replaced=replaced,
        sources=dict(Counter(new.sources)),
    )


def _new_rows(
    parent: Parent,
    corpus: NextCorpus,
    since: EventsSince,
    given: Vectors,
    alike: Vectors,
    seed: int,
) -> Newcomers:
    if np.isfinite(given).all():  # nothing is left to predict
        source: Source = "embedding"
        return Newcomers(rows=given, sources=(source,) * len(given))
    tower, change = parent.tower, corpus.change
    total = len(tower.user_ids)
    users = np.random.default_rng(seed).choice(total, min(_USERS, total), replace=False)
    same = CorpusChange(before=change.before, kept=np.arange(change.before))
    queries, taken = _queries_of_takers(parent, corpus, since)
    kept = None if tower.kept is None else tower.kept.on(change)
    events = np.empty(0, np.int32) if kept is None else kept.events.columns
    catalogue = corpus.catalogue
    titles = [title or key for title, key in zip(catalogue.titles, catalogue.ids, strict=True)]
    return newcomer_rows(
        parent.embeddings[change.kept],
        catalogue.attributes,
        titles,
        counts=np.bincount(events, minlength=change.after)[: len(change.kept)],
        queries=embed_kept(tower.on(same), parent.embeddings, users),
        seen=None if kept is None else kept.take(users).events,
        given=given,
        like=alike,
        takers=Takers(queries=queries, candidates=taken),
    )


def _given(source: CandidateRows, parent: Parent) -> Vectors | None:
    """Return the embeddings `[n, d]` that a file of candidates gives; NaN for rows without one.

    Raises:
        DataError: One has another length than those of the parent version, or is not finite.
    """
    if EMBEDDING_COLUMN not in source.special:
        return None
    column = source.rows.columns.column(EMBEDDING_COLUMN)
    filled = np.flatnonzero([value not in (None, "") for value in column.to_pylist()])
    vectors = np.full([len(source.ids), parent.embeddings.shape[1]], np.nan, np.float32)
    if not len(filled):
        return vectors
    rows = source.rows
    if len(filled) < len(rows):
        rows = replace(rows, columns=rows.columns.take(filled))
    table = OwnTable(table=rows)
    own = table.vectors(EMBEDDING_COLUMN)
    if own.shape[1] != vectors.shape[1]:
        raise DataError(
            f"{source.rows.name}: embeddings have {own.shape[1]} values, those of {parent} "
            f"{vectors.shape[1]}; give embeddings of the same candidate tower"
        )
    wrong = np.flatnonzero(~np.isfinite(own).all(axis=1))
    if len(wrong):
        raise DataError(
            f"{source.rows.name}: the embedding of {source.ids[filled[wrong[0]]]!r} is not finite; "
            "correct it"
        )
    vectors[filled] = own
    return vectors


def _like(source: CandidateRows, ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the position of the candidate that each row is like, -1 for none, int64 `[n]`.

    Raises:
        DataError: A row names a candidate that the parent version does not have.
    """
    if LIKE_COLUMN not in source.special:
        return np.full(len(source.ids), -1, np.int64)
    column = source.rows.columns.column(LIKE_COLUMN).cast("string")
    names = [text or "" for text in column.to_pylist()]
    places = positions_of(names, ids)
    for row, (name, place) in enumerate(zip(names, places.tolist(), strict=True)):
        if name and place < 0:
            raise DataError(
                f"{source.rows.name}: {source.ids[row]!r} is like {name!r}, which is not in the "
                "parent version; name a candidate that is"
            )
    return places


def _queries_of_takers(
    parent: Parent, corpus: NextCorpus, since: EventsSince
) -> tuple[Vectors, npt.NDArray[np.int64]]:
    """Return the queries of those who took new candidates, and which candidate each took.

    A query is that of the user by all events but those with new candidates.

    Returns:
        Queries float32 `[m, d]`, and the numbers int64 `[m]` of the new candidates.
    """
    first = len(corpus.change.kept)
    new = since.candidates >= first
    takers = np.unique(since.users[new])
    ids = [since.user_ids[user] for user in takers.tolist()]
    row = {key: number for number, key in enumerate(parent.tower.user_ids)}
    users = np.array([row.get(key, -1) for key in ids], np.int64)
    tower: StoredQueryTower = parent.tower
    before = CorpusChange(before=corpus.change.before, kept=np.arange(corpus.change.before))
    known = since.histories(ids, ~new)
    columns = corpus.change.kept[known.events.columns].astype(np.int32)
    later = replace(known, events=replace(known.events, columns=columns))
    kept = _kept(tower.kept, users).followed_by(later)
    queries = embed_after(tower.on(before), parent.embeddings, users, kept)
    place = np.full(len(since.user_ids), -1, np.int64)
    place[takers] = np.arange(len(takers))
    return queries[place[since.users[new]]], since.candidates[new].astype(np.int64) - first


def _kept(kept: KeptEvents | None, users: npt.NDArray[np.int64]) -> KeptEvents:
    """Return the kept events of users at positions; none for those at -1."""
    if kept is None:
        return KeptEvents.none(len(users))
    return kept.take(users)
