"""Report on a model of one's own: what is known of it, and nothing else."""

import numpy as np

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.own.interactions import Rated
from shortlist.export.own.queries import QuerySource
from shortlist.export.own.vectors import VectorTable
from shortlist.export.publication import GateResults, Staged
from shortlist.export.report.content import Report, SampleUser
from shortlist.export.report.publication import index_facts
from shortlist.export.report.samples import show_candidate
from shortlist.export.servable.contents import Inputs, ServableContents
from shortlist.serving.repository.version import Manifest, read_manifest

__all__ = ["own_report"]

_SAMPLES, _SHOWN = 4, 10
_LONGEST = 60  # characters of an input


def own_report(
    staged: Staged,
    gates: GateResults,
    *,
    contents: ServableContents,
    table: VectorTable,
    source: QuerySource,
    rated: Rated | None,
) -> Report:
    """Return the report of a model that is about to be published.

    Args:
        staged: Folder of each servable's version, with its manifest; at least one.
        gates: Results of the gates by servable.
        contents: What the servables have in common.
        table: Candidates.
        source: Queries.
        rated: Metrics; None if there are no interactions.
    """
    manifests = {name: read_manifest(path) or Manifest() for name, path in staged.items()}
    first = next(iter(manifests.values()))
    facts = {
        "Query tower": source.name,
        "Inputs": ", ".join(spec.name for spec in source.inputs),
        "Candidates": f"{len(table.ids):,}",
        "Dimensions": f"{table.dimension}",
        "Similarity": str(first.config["similarity"]),
    }
    if table.attributes:
        facts["Attributes"] = ", ".join(table.attributes)
    return Report(
        model=first.model or "",
        version=first.version,
        created=first.created or "",
        facts=facts,
        rates={} if rated is None else rated.rates,
        num_rated=0 if rated is None else rated.count,
        samples=_samples(contents, table, source),
        indexes=[index_facts(manifests[name], path) for name, path in staged.items()],
        gates=gates,
        config=first.config,
        packages=first.packages,
        protocol="seen_kept",
    )


def _samples(
    contents: ServableContents, table: VectorTable, source: QuerySource
) -> list[SampleUser]:
    """Return the best candidates of the first queries, by exact search."""
    asked: Inputs = {name: values[:_SAMPLES] for name, values in contents.asked.items()}
    vectors = tf.constant(source.embed(asked))
    assert contents.similarity is not None
    scores = contents.similarity.query(vectors).numpy() @ contents.index_rows.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :_SHOWN]
    titles = table.ids if table.titles is None else table.titles
    return [
        SampleUser(
            kind=_query(asked, row),
            user_id=None,
            num_interactions=0,
            num_held_out=0,
            history=(),
            recommendations=[
                show_candidate(titles[position] or table.ids[position], table.attributes, position)
                for position in positions
            ],
        )
        for row, positions in enumerate(best.tolist())
    ]


def _query(asked: Inputs, row: int) -> str:
    """Return a query in words: `user_id 42`."""
    parts = []
    for name, values in asked.items():
        value = np.asarray(values[row]).tolist()
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
        parts.append(f"{'user' if name == contract.USER_ID else name} {text}")
    return ", ".join(parts)
