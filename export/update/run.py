"""An update: a version from a parent version, without training."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from shortlist.export.data.change import CorpusChange
from shortlist.export.data.config import DataConfig, DataError
from shortlist.export.gates.settings import GateSettings
from shortlist.export.index.previous import PreviousIndex
from shortlist.export.own.published import previous_index
from shortlist.export.progress import Progress, StepTimer
from shortlist.export.publication import RECALL_QUERIES, PublishedServables, publish_servables
from shortlist.export.update.changes import ChangesConfig, read_changes
from shortlist.export.update.contents import update_contents
from shortlist.export.update.corpus import NextCorpus, next_corpus
from shortlist.export.update.embeddings import embeddings_after
from shortlist.export.update.events import EventsSince
from shortlist.export.update.parent import Parent, read_parent
from shortlist.serving.repository.reference import VersionReference
from shortlist.serving.repository.removed import RemovedList
from shortlist.serving.repository.version import UpdateFacts

__all__ = ["UpdateResult", "run_update"]

log = logging.getLogger(__name__)

_SEED = 42


@dataclass(frozen=True, kw_only=True)
class UpdateResult(PublishedServables):
    """A published update.

    Attributes:
        parent: Number of the version that it was made from.
        facts: What changed.
        sources: Number of new candidates by where their embeddings come from.
        notes: Lines for the user about what was left out.
    """

    parent: int
    facts: UpdateFacts
    sources: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()


def run_update(
    found: VersionReference,
    config: ChangesConfig,
    *,
    removed: Sequence[str] = (),
    allow_again: bool = False,
    progress: Progress | None = None,
    gates: GateSettings | None = None,
) -> UpdateResult | None:
    """Publish a version with the towers of another and a changed corpus; None for no change.

    Args:
        found: Version to start from.
        config: Files with the changes.
        removed: Ids of further candidates to remove.
        allow_again: Let candidates back in that were removed before.
        progress: Progress callback, called for each step.
        gates: Limits of the gates; None for the defaults.

    Raises:
        DataError: A file is missing or faulty, or does not fit the parent version.
        GateError: A gate failed; nothing was published.
        RepositoryError: The parent lacks what an update needs, or the repository is not writable.
        ValueError: An index misses the recall.
    """
    timer = StepTimer(progress or Progress())
    with timer.step("parent") as measures:
        parent = read_parent(found)
        measures.append(str(parent))
        measures.append(f"{len(parent.catalogue.ids):,} candidates")
    with timer.step("changes") as measures:
        changes = read_changes(_with_columns(config, parent), parent.catalogue.attributes)
        changes = changes.with_removed(removed)
        if not changes:
            raise DataError(
                "there is nothing to change; give --candidates, --attributes, --remove, "
                "--interactions or --forget-users"
            )
        removals = RemovedList(parent.repository.root, parent.config.model)
        barred = () if allow_again else removals.ids()
        corpus = next_corpus(parent.catalogue, changes, barred)
        dataset = parent.manifest.dataset
        newest = None if dataset is None else dataset.newest
        since = EventsSince.of_dataset(changes.interactions, corpus.catalogue.ids, newest)
        corpus_rows = embeddings_after(parent, corpus, changes.candidates, since, seed=_SEED)
        replaced = corpus_rows.replaced
        updated = update_contents(
            parent,
            changes,
            corpus,
            since,
            corpus_rows.embeddings,
            num_queries=RECALL_QUERIES,
            seed=_SEED,
        )
        measures.append(str(updated.facts) or "nothing to change")
    if not updated.facts and not len(replaced):
        for note in _notes(corpus, since):
            log.warning(note)
        return None
    # Before the version is visible: a crash in between removes once more, not once less.
    new = {corpus.catalogue.ids[len(corpus.change.kept) + row] for row in range(len(corpus.new))}
    with removals.changed(add=changes.removed, allow=new):
        published = publish_servables(
            updated.contents,
            updated.queries,
            parent.config,
            parent.repository.root,
            timer=timer,
            gates=gates,
            previous=_previous(parent, corpus.change, replaced),
        )
    return UpdateResult(
        **vars(published),
        parent=parent.version,
        facts=updated.facts,
        sources=corpus_rows.sources,
        notes=[*_notes(corpus, since), *_remains(parent, updated.facts, published.version)],
    )


def _previous(
    parent: Parent, change: CorpusChange, replaced: npt.NDArray[np.int64]
) -> dict[str, PreviousIndex]:
    """Return the indexes of the parent version by kind, with the positions after a change."""
    if parent.config.shards > 1:
        return {}
    indexes = {
        kind: previous_index(parent.paths[parent.config.name(kind)])
        for kind in parent.config.indexes
    }
    return {
        kind: index.after(change, replaced) for kind, index in indexes.items() if index is not None
    }


def _with_columns(config: ChangesConfig, parent: Parent) -> ChangesConfig:
    """Return the configuration with the names of columns in the data of the parent version."""
    dataset = parent.manifest.dataset
    if dataset is None or dataset.source is None:
        return config
    return replace(config, data=DataConfig.from_json(dataset.source))


def _remains(parent: Parent, facts: UpdateFacts, version: int) -> list[str]:
    """Return a line about the earlier versions that still hold forgotten users, if there are."""
    repository = parent.repository
    before = {
        number for name in parent.paths for number in repository.versions(name) if number < version
    }
    if not facts.forgotten or not before:
        return []
    numbers = ", ".join(map(str, sorted(before)))
    text = f"forgotten users are still in versions {numbers}; delete them with `shortlist prune`"
    return [f"{text} once no server needs them, and from request logs"]


def _notes(corpus: NextCorpus, since: EventsSince) -> list[str]:
    """Return lines about what was left out."""
    notes = []
    if corpus.barred:
        notes.append(
            f"{len(corpus.barred):,} candidates were removed before and stay out, such as "
            f"{corpus.barred[0]!r}; --allow-again lets them back in"
        )
    if since.unknown:
        notes.append(f"{since.unknown:,} events name candidates that are not in the corpus")
    if since.earlier:
        notes.append(f"{since.earlier:,} events are no later than those of the parent version")
    return notes
