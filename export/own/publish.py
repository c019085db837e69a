"""`publish_model`: towers and embeddings from elsewhere, through the same gates as an export."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.clients.interface import RetrievalInterface
from shortlist.export._tf import tf
from shortlist.export.config import OwnConfig
from shortlist.export.data.config import DataError
from shortlist.export.gates.settings import GateSettings
from shortlist.export.index.similarity import Similarity, fit_similarity
from shortlist.export.own.candidates import embed_candidates
from shortlist.export.own.inputs import describe_inputs, read_inputs, take
from shortlist.export.own.interactions import Rated, rate
from shortlist.export.own.queries import Columns, QuerySource, check_dimensions, load_queries
from shortlist.export.own.report import own_report
from shortlist.export.own.tower import InputSignature, load_tower
from shortlist.export.own.vectors import VectorTable, check_zeros, read_vectors
from shortlist.export.preflight import check_indexes
from shortlist.export.progress import Progress, StepTimer
from shortlist.export.publication import RECALL_QUERIES, PublishedServables, publish_servables
from shortlist.export.servable.contents import Inputs, ServableContents, package_versions
from shortlist.export.servable.saved_model import check_producer
from shortlist.export.servable.self_test import PROBE_SIZE, ProbeQueries, corpus_facts
from shortlist.serving.repository.version import DatasetFacts, Manifest
from shortlist.serving.request_log.queries import input_rows
from shortlist.serving.request_log.selection import SelectedLog, is_request_log
from shortlist.serving.servers.check import Asked, ask_in_fresh_process

__all__ = ["OwnResult", "publish_model"]

log = logging.getLogger(__name__)

_FEW = 50  # queries by which recall is not known to a hundredth


@dataclass(frozen=True, kw_only=True)
class OwnResult(PublishedServables):
    """A published model that was trained elsewhere.

    Attributes:
        metrics: Hit rates on the interactions, as in the manifest; empty without interactions.
        num_candidates: Size of the corpus.
        inputs: Names of the inputs of `serving_default`.
    """

    metrics: Mapping[str, Any] = field(default_factory=dict)
    num_candidates: int
    inputs: Sequence[str]


def publish_model(
    query_tower: Any,
    candidates: VectorTable | str | Path,
    repository: str | Path,
    *,
    config: OwnConfig | None = None,
    queries: Mapping[str, Any] | str | Path | None = None,
    interactions: str | Path | None = None,
    candidate_tower: Any = None,
    columns: Columns | None = None,
    signature: str | None = None,
    output: str | None = None,
    candidate_signature: str | None = None,
    input_signature: InputSignature | None = None,
    gates: GateSettings | None = None,
    progress: Progress | None = None,
) -> OwnResult:
    """Publish a query tower and candidate embeddings through every configured index.

    Args:
        query_tower: Folder of a SavedModel, Keras model, `tf.Module` or callable of TensorFlow
            ops; or queries by user id: a `VectorTable`, or a Parquet, CSV or NPZ file.
        candidates: A `VectorTable`, or a Parquet, CSV or NPZ file, whose other columns become
            attributes for filters; with `candidate_tower`, a file of its inputs.
        repository: Model repository, created if missing.
        config: Model name, indexes, recall and similarity; None for the defaults.
        queries: Rows of the query tower's inputs, by name, in a file or in a request log, for
            recall and known answers; None to draw them from a table or from the interactions.
        interactions: File with the query tower's inputs and a candidate id per row, which the
            model is measured on; None to measure nothing.
        candidate_tower: As `query_tower`, to compute the embeddings; None if `candidates` has
            them.
        columns: Names of columns; None for the defaults.
        signature: Name of the query tower's signature, if it has several.
        output: Name of its output with the vectors, if it has several.
        candidate_signature: Name of the candidate tower's signature.
        input_signature: Inputs of a query tower that is a module or callable.
        gates: Limits of the gates; None for the defaults.
        progress: Progress callback, called for each step.

    Raises:
        DataError: A tower, file or vector is not usable, or a tower reads or writes files, opens
            sockets, runs Python or prints; the message says which.
        GateError: A gate failed; nothing was published.
        RepositoryError: The repository is not writable, or another export holds its lock.
        ValueError: An index misses the recall, or the target server lacks an op.
    """
    config, columns = config or OwnConfig(), columns or Columns()
    gates = gates or GateSettings()
    check_indexes(config)
    if "ops" not in gates.allow:
        check_producer(gates.target_producer)
        _check_ops([query_tower, candidate_tower])
    timer = StepTimer(progress or Progress())
    with ExitStack() as stack:
        with timer.step("candidates") as measures:
            table = _candidates(candidates, candidate_tower, candidate_signature, columns)
            check_zeros(table, config.similarity, allowed="corpus" in gates.allow)
            measures += _table_measures(table)
        with timer.step("queries") as measures:
            source = stack.enter_context(
                load_queries(
                    query_tower,
                    columns,
                    signature=signature,
                    output=output,
                    input_signature=input_signature,
                )
            )
            asked = _asked(source, queries, interactions, config.seed)
            vectors = source.embed(asked)
            check_dimensions(source, vectors.shape[1], table)
            measures.append(f"{len(vectors)} of {source.name}")
            measures.append(f"inputs {describe_inputs(source.inputs)}")
        if len(vectors) < _FEW and config.indexes != ("brute_force",):
            log.warning(
                "recall is measured on %d queries, which is little to tune by; give some hundred",
                len(vectors),
            )
        similarity, rows = fit_similarity(config.similarity, table.embeddings)
        rated = None
        if interactions is not None:
            with timer.step("evaluate") as measures:
                rated = rate(Path(interactions), source, similarity, rows, table, columns)
                measures.append(str(rated))
        contents = _contents(source, asked, vectors, similarity, rows, table, rated, config)
        published = publish_servables(
            contents,
            similarity.query(tf.constant(vectors[:RECALL_QUERIES])).numpy(),
            config,
            Path(repository),
            timer=timer,
            gates=gates,
            report=partial(own_report, contents=contents, table=table, source=source, rated=rated),
        )
    return OwnResult(
        **vars(published),
        metrics=contents.manifest.metrics,
        num_candidates=len(table.ids),
        inputs=[spec.name for spec in source.inputs],
    )


def _check_ops(towers: Sequence[Any]) -> None:
    """Check the ops of towers that are SavedModels, before this process runs any of them."""
    paths = [Path(tower).expanduser() for tower in towers if isinstance(tower, str | Path)]
    asked = [
        Asked(name=path.name, version=1, path=path)
        for path in paths
        if (path / "saved_model.pb").is_file()
    ]
    answers = ask_in_fresh_process(asked).servables if asked else ()
    for servable, fresh in zip(asked, answers, strict=True):
        if fresh.file_ops:
            raise DataError(
                f"{servable.path}: {fresh.file_ops[0]}; if you trust the model, allow it with "
                "--allow ops"
            )


def _candidates(
    candidates: VectorTable | str | Path, tower: Any, signature: str | None, columns: Columns
) -> VectorTable:
    if isinstance(candidates, VectorTable):
        return candidates
    path = Path(candidates).expanduser()
    if tower is None:
        return read_vectors(
            path,
            id_column=columns.candidate,
            embedding_column=columns.embedding,
            title_column=columns.title,
        )
    with load_tower(tower, signature=signature) as loaded:
        return embed_candidates(
            loaded, path, id_column=columns.candidate, title_column=columns.title
        )


def _table_measures(table: VectorTable) -> list[str]:
    measures = [f"{len(table.ids):,} of {table.dimension} dimensions"]
    return (
        [*measures, f"attributes {', '.join(table.attributes)}"] if table.attributes else measures
    )


def _asked(
    source: QuerySource,
    queries: Mapping[str, Any] | str | Path | None,
    interactions: str | Path | None,
    seed: int,
) -> Inputs:
    """Return rows of inputs for recall, known answers and warm-up: as many as are useful."""
    if isinstance(queries, Mapping):
        rows: Inputs | None = _arrays(source, queries)
    elif queries is not None and is_request_log(queries):
        names = [str(spec.name) for spec in source.inputs]
        recorded = input_rows(SelectedLog(queries), names, RECALL_QUERIES)
        rows = _arrays(source, _columns(recorded, names, queries))
    elif queries is not None:
        rows, _ = read_inputs(Path(queries), source.inputs, tower=source.name)
    else:
        rows = source.rows
        if rows is None and interactions is not None:
            rows, _ = read_inputs(Path(interactions), source.inputs, tower=source.name)
    if rows is None:
        raise DataError(
            f"{source.name} takes {describe_inputs(source.inputs)}, and no values of them are "
            "known; give a file with some hundred rows of them with --queries, or --interactions"
        )
    count = len(next(iter(rows.values())))
    if count <= RECALL_QUERIES:
        return rows
    drawn = np.random.default_rng(seed).choice(count, RECALL_QUERIES, replace=False)
    return take(rows, drawn)


def _columns(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], log: str | Path
) -> dict[str, list[Any]]:
    """Return the values of recorded requests by input name."""
    columns = {name: [row[name] for row in rows] for name in names}
    for name, values in columns.items():
        if len({len(value) for value in values if isinstance(value, list)}) > 1:
            raise DataError(
                f"requests in {log} have different numbers of values in {name!r}; give rows of "
                "one length in a file of columns instead"
            )
    return columns


def _arrays(source: QuerySource, queries: Mapping[str, Any]) -> Inputs:
    names = {spec.name for spec in source.inputs}
    if set(queries) != names:
        raise DataError(
            f"queries has {', '.join(queries)}; {source.name} takes "
            f"{describe_inputs(source.inputs)}"
        )
    arrays = {
        spec.name: np.asarray(
            queries[spec.name], object if spec.dtype == tf.string else spec.dtype.as_numpy_dtype
        )
        for spec in source.inputs
    }
    lengths = {len(values) for values in arrays.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise DataError("queries must have the same number of rows, at least one, of each input")
    return arrays


def _contents(
    source: QuerySource,
    asked: Inputs,
    vectors: npt.NDArray[np.float32],
    similarity: Similarity,
    rows: npt.NDArray[np.float32],
    table: VectorTable,
    rated: Rated | None,
    config: OwnConfig,
) -> ServableContents:
    probed = similarity.query(tf.constant(vectors[:PROBE_SIZE])).numpy()
    return ServableContents(
        askers=partial(source.askers, len(table.ids)),
        asked=asked,
        candidate_ids=table.ids,
        index_rows=rows,
        attributes=table.attributes,
        titles=table.titles,
        similarity=similarity,
        probe=_probe(source, asked, probed),
        sample=None if rated is None else rated.sample,
        manifest=Manifest(
            model=config.model,
            dataset=DatasetFacts(
                name=table.name,
                users=0 if source.rows is None else len(source.rows[contract.USER_ID]),
                candidates=len(table.ids),
                interactions=0 if rated is None else rated.count,
            ),
            metrics={} if rated is None else rated.as_json(),
            reference=None if rated is None else rated.reference,
            config=config.as_json(),
            interface=_interface(source),
            packages=package_versions(),
            corpus=corpus_facts(table.embeddings)
            if config.similarity == "dot"
            else corpus_facts(rows),
        ),
    )


def _probe(source: QuerySource, asked: Inputs, vectors: npt.NDArray[np.float32]) -> ProbeQueries:
    first = {name: values[:PROBE_SIZE].tolist() for name, values in asked.items()}
    user_ids = [str(number) for number in range(len(vectors))]
    if source.by_user:
        return ProbeQueries(user_ids=first[contract.USER_ID], queries=vectors)
    return ProbeQueries(user_ids=user_ids, queries=vectors, inputs=first)


def _interface(source: QuerySource) -> dict[str, Any]:
    """Return the interface for the manifest; empty if it is the contract's."""
    if source.by_user:
        return {}
    names = [spec.name for spec in source.inputs]
    ids = [
        spec.name
        for spec in source.inputs
        if spec.shape.rank == 1 and (spec.dtype == tf.string or spec.dtype.is_integer)
    ]
    query = contract.USER_ID if contract.USER_ID in names else (ids or names)[0]
    others = tuple(name for name in names if name != query)
    return asdict(RetrievalInterface(query=query, others=others))
