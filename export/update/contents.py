"""The servables after an update, from those of the parent version and what changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.data.change import CorpusChange
from shortlist.export.index.similarity import Similarity, fit_similarity
from shortlist.export.servable.askers import KnownUsers
from shortlist.export.servable.contents import ServableContents, package_versions
from shortlist.export.servable.self_test import PROBE_SIZE, ProbeQueries, corpus_facts
from shortlist.export.towers.query_tower import QueryTower
from shortlist.export.towers.stored.query_tower import StoredQueryTower
from shortlist.export.towers.trained import embed_kept
from shortlist.export.update.changes import Changes
from shortlist.export.update.corpus import NextCorpus
from shortlist.export.update.events import EventsSince
from shortlist.export.update.parent import Parent
from shortlist.serving.repository.probe import Interaction, SampledUser, UserSample
from shortlist.serving.repository.version import UpdateFacts

__all__ = ["Updated", "update_contents"]

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Updated:
    """Servables after an update.

    Attributes:
        contents: Their contents.
        queries: `[num_queries, r]` queries of the index, to measure recall.
        facts: What changed.
    """

    contents: ServableContents
    queries: Vectors
    facts: UpdateFacts


def update_contents(
    parent: Parent,
    changes: Changes,
    corpus: NextCorpus,
    since: EventsSince,
    embeddings: Vectors,
    *,
    num_queries: int,
    seed: int,
) -> Updated:
    """Return what the servables hold after an update.

    Args:
        parent: Parent version.
        changes: What to change.
        corpus: Candidates after it.
        since: Events since.
        embeddings: Float32 `[num_candidates, d]` of the corpus after.
        num_queries: Queries to measure recall with, at most.
        seed: Seed of the users whose queries they are.
    """
    forgotten = np.isin(np.array(parent.tower.user_ids, object), list(changes.forgotten))
    users = parent.tower.without(forgotten) if forgotten.any() else parent.tower
    tower = users.on(corpus.change, since.histories(users.user_ids) if len(since) else None)
    similarity, rows = fit_similarity(parent.similarity, embeddings)
    queries = _Queries(users, tower, embeddings, similarity, seed)
    probed = queries.of_parent(parent.probe_users)
    facts = UpdateFacts(
        added=corpus.change.added,
        removed=corpus.change.before - len(corpus.change.kept),
        described=corpus.described,
        events=len(since),
        forgotten=int(forgotten.sum()),
    )
    contents = ServableContents(
        askers=partial(KnownUsers, tower),
        asked={contract.USER_ID: np.array(probed.user_ids, dtype=object)},
        candidate_ids=corpus.catalogue.ids,
        index_rows=rows,
        attributes=corpus.catalogue.attributes,
        titles=[
            title or key
            for title, key in zip(corpus.catalogue.titles, corpus.catalogue.ids, strict=True)
        ],
        probe=probed,
        sample=_sample(parent.sample, changes.forgotten, corpus.change, since),
        similarity=similarity,
        rating_head=parent.rating_head(users, corpus.change),
        similar_queries=_similar(parent, corpus.change, embeddings),
        taste_dimension=parent.taste_dimension,
        manifest=_manifest(parent, corpus, since, facts, rows),
    )
    drawn = queries.draw(num_queries)
    return Updated(contents=contents, queries=drawn, facts=facts)


class _Queries:
    """Queries of the users that remain."""

    def __init__(
        self,
        users: StoredQueryTower,
        tower: QueryTower,
        embeddings: Vectors,
        similarity: Similarity,
        seed: int,
    ) -> None:
        self._ids, self._tower, self._embeddings = users.user_ids, tower, embeddings
        self._similarity = similarity
        self._random = np.random.default_rng(seed)

    def of_parent(self, user_ids: Sequence[str]) -> ProbeQueries:
        """Return those of a version's users who remain; of others if none does."""
        row = {key: number for number, key in enumerate(self._ids)}
        rows = np.array([row[key] for key in user_ids if key in row], np.int64)
        if not len(rows):
            rows = self._drawn(PROBE_SIZE)
        if not len(rows):  # all users are forgotten
            return ProbeQueries(user_ids=[""], queries=self._embed(np.array([-1])))
        return ProbeQueries(
            user_ids=[self._ids[number] for number in rows.tolist()], queries=self._embed(rows)
        )

    def draw(self, count: int) -> Vectors:
        """Return the queries of some users."""
        rows = self._drawn(count)
        return self._embed(rows if len(rows) else np.array([-1]))

    def _drawn(self, count: int) -> npt.NDArray[np.int64]:
        total = len(self._ids)
        return np.sort(self._random.choice(total, min(count, total), replace=False))

    def _embed(self, rows: npt.NDArray[np.int64]) -> Vectors:
        queries = embed_kept(self._tower, self._embeddings, rows)
        vectors: Vectors = self._similarity.query(tf.constant(queries)).numpy()
        return vectors


def _similar(parent: Parent, change: CorpusChange, embeddings: Vectors) -> Vectors | None:
    """Return the queries of `similar`; a new candidate's is its own taste embedding."""
    if parent.similar_queries is None:
        return None
    new = embeddings[len(change.kept) :, : parent.taste_dimension]
    return change.rows(parent.similar_queries, new)


def _sample(
    sample: UserSample | None,
    forgotten: Sequence[str],
    change: CorpusChange,
    since: EventsSince,
) -> UserSample | None:
    """Return the sampled users with their interactions with the candidates of the corpus."""
    if sample is None:
        return None
    moved, gone = change.moved(), set(forgotten)
    events = since.of_users()

    def after(interactions: Sequence[Interaction]) -> tuple[Interaction, ...]:
        places = ((int(moved[position]), time) for position, time in interactions)
        return tuple((place, time) for place, time in places if place < change.after)

    def later(user_id: str) -> tuple[Interaction, ...]:
        return tuple(
            (int(since.candidates[event]), None if since.times is None else int(since.times[event]))
            for event in events.get(user_id, ())
        )

    users = {
        user_id: SampledUser(
            fitted=(*after(user.fitted), *later(user_id)),
            held_out=after(user.held_out),
            given=after(user.given),
        )
        for user_id, user in sample.users.items()
        if user_id not in gone
    }
    return UserSample(bound=sample.bound, left_out=sample.left_out - gone, users=users)


def _manifest(
    parent: Parent, corpus: NextCorpus, since: EventsSince, facts: UpdateFacts, rows: Vectors
) -> Any:
    before = parent.manifest
    dataset = before.dataset
    if dataset is not None:
        newest = [time for time in (dataset.newest, since.newest) if time is not None]
        dataset = replace(
            dataset,
            users=dataset.users - facts.forgotten,
            candidates=len(corpus.catalogue.ids),
            interactions=dataset.interactions + facts.events,
            fingerprint=None,
            newest=max(newest, default=None),
        )
    packages: Mapping[str, str] = {**before.packages, **package_versions()}
    return replace(
        before,
        parent=parent.version,
        update=facts,
        dataset=dataset,
        packages=packages,
        corpus=corpus_facts(rows),
        gates=(),
        extra={},
    )
