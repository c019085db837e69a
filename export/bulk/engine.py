"""Runs a servable in this process: Arrow batches of queries in, Arrow batches of lists out."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shortlist.clients import contract
from shortlist.clients.errors import ProtocolError, error_class_for_code
from shortlist.clients.local import LocalRequest, LocalServable, RetrievalOptions
from shortlist.clients.wire.dtypes import by_name, numpy_dtype
from shortlist.serving.embedded.api.errors import StatusError
from shortlist.serving.embedded.runtime.saved_model import read_meta_graph
from shortlist.serving.embedded.runtime.servable import RuntimeOptions, load_servable
from shortlist.serving.embedded.runtime.vocabulary import VOCABULARY, add_vocabulary
from shortlist.serving.errors import RepositoryError

__all__ = [
    "AGES",
    "CANDIDATES",
    "FEATURES",
    "HISTORY",
    "USERS",
    "WEIGHTS",
    "BulkServable",
]

# Columns of queries: `user_id` and any of the lists, one for each user, or `candidate_id`.
USERS: Final = pa.field(contract.USER_ID, pa.string())
HISTORY: Final = pa.field("history", pa.list_(pa.string()))
AGES: Final = pa.field("ages", pa.list_(pa.float32()))
WEIGHTS: Final = pa.field("weights", pa.list_(pa.float32()))
FEATURES: Final = pa.field("features", pa.map_(pa.string(), pa.list_(pa.string())))
CANDIDATES: Final = pa.field(contract.CANDIDATE_ID, pa.string())

_TAGS: Final = ("serve",)
_CELLS: Final = 1 << 20  # of a padded history, about 100 MB
# What an answer tells of its query, by output, and the column of queries that it needs.
_TOLD: Final[Mapping[str, tuple[pa.DataType, str]]] = {
    contract.KNOWN_USER: (pa.bool_(), USERS.name),
    contract.KNOWN_HISTORY: (pa.int32(), HISTORY.name),
    contract.KNOWN_FEATURES: (pa.int32(), FEATURES.name),
    contract.KNOWN_CANDIDATE: (pa.bool_(), CANDIDATES.name),
}


class BulkServable:
    """A loaded version; `answer` is safe to call from several threads.

    Args:
        path: Folder of the version: `<repository>/<model>/<version>`.
        tensors: Arguments of `find_interface`, for signatures that leave them open.
        options: What all queries share.
        features: Features of every query, besides those of its own.

    Raises:
        RepositoryError: The SavedModel cannot be loaded.
        ValueError: An option has the wrong type or is out of range.
    """

    def __init__(
        self,
        path: Path,
        *,
        tensors: Mapping[str, str] | None = None,
        options: RetrievalOptions | None = None,
        features: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.path = path
        self._name, self._version = path.parent.name, int(path.name)
        try:
            meta_graph = read_meta_graph(str(path), _TAGS)
            self._tables = add_vocabulary(meta_graph)
            self._servable = load_servable(
                self._name,
                self._version,
                str(path),
                tags=_TAGS,
                options=RuntimeOptions(),
                meta_graph=meta_graph,
            )
        except StatusError as exc:
            raise RepositoryError(f"{path} cannot be loaded: {exc.message}") from exc
        self._ask(options or RetrievalOptions(), tensors, features)

    def asking(
        self,
        options: RetrievalOptions,
        *,
        tensors: Mapping[str, str] | None = None,
        features: Mapping[str, Sequence[str]] | None = None,
    ) -> Self:
        """Return the same loaded version with other options.

        Raises:
            ValueError: An option has the wrong type or is out of range.
        """
        other = copy.copy(self)
        other._ask(options, tensors, features)
        return other

    def _ask(
        self,
        options: RetrievalOptions,
        tensors: Mapping[str, str] | None,
        features: Mapping[str, Sequence[str]] | None,
    ) -> None:
        signatures = {
            key: value for key, value in self._servable.signatures.items() if key != VOCABULARY
        }
        self._requests = LocalServable(
            self._name, self._version, signatures, tensors=tensors, options=options
        )
        self._features = {name: [*values] for name, values in (features or {}).items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the model; nothing must run any more."""
        self._servable.close()

    def users(self) -> pa.StringArray:
        """Return the users that the servable knows, sorted.

        Raises:
            SignatureNotFound: The servable does not retrieve candidates by user id.
            RepositoryError: It does not hold its users' ids.
        """
        interface = self._requests.interface
        ids = self._vocabulary(interface.signature, interface.query)
        if ids is None:
            raise RepositoryError(
                f"{self.path} holds no list of its users; give --users FILE with their ids"
            )
        return ids

    def candidates(self) -> pa.StringArray:
        """Return the candidates that `similar` knows, sorted.

        Raises:
            SignatureNotFound: The servable does not have the signature `similar`.
            RepositoryError: It does not hold its candidates' ids.
        """
        interface = self._requests.similar([""]).interface
        ids = self._vocabulary(interface.signature, interface.query)
        if ids is None:
            raise RepositoryError(
                f"{self.path} holds no list of its candidates; give --similar FILE with their ids"
            )
        return ids

    def answers(self, queries: pa.Schema) -> pa.Schema:
        """Return the columns of the answers to such queries."""
        first = CANDIDATES if CANDIDATES.name in queries.names else USERS
        names = {*queries.names, *([FEATURES.name] if self._features else [])}
        told = [pa.field(name, kind) for name, (kind, of) in _TOLD.items() if of in names]
        return pa.schema(
            [
                first,
                pa.field(contract.CANDIDATE_IDS, pa.list_(pa.string())),
                pa.field(contract.SCORES, pa.list_(pa.float32())),
                *told,
            ]
        )

    def answer(self, queries: pa.RecordBatch) -> pa.RecordBatch:
        """Return the candidates for each query, best first, without padding.

        Args:
            queries: Column `user_id`, "" for none, and any of `HISTORY`, `AGES`, `WEIGHTS` and
                `FEATURES`; or column `candidate_id`, for similar candidates.

        Raises:
            ServingError: The servable cannot do what is asked, or failed.
            ValueError: A query does not fit the servable.
        """
        parts = [self._answer(part) for part in _parts(queries)]
        return parts[0] if len(parts) == 1 else pa.concat_batches(parts)

    def prepared(self, queries: pa.RecordBatch) -> Callable[[], object]:
        """Return a function that runs the signature alone on queries; to measure against."""
        request = self._request(
            {name: queries.column(name).to_pylist() for name in queries.schema.names}
        )
        signature = self._requests.metadata.signatures[request.interface.signature]
        feeds = {
            signature.inputs[name].tensor_name: _array(*value)
            for name, value in request.inputs.items()
        }
        fetches = [signature.outputs[name].tensor_name for name in self._wanted(request)]
        return partial(self._servable.run_tensors, feeds, fetches)

    def _wanted(self, request: LocalRequest) -> list[str]:
        """Return the outputs that an answer is made of."""
        outputs = self._requests.metadata.signatures[request.interface.signature].outputs
        return sorted({request.interface.ids, request.interface.scores, *_TOLD} & outputs.keys())

    def _answer(self, queries: pa.RecordBatch) -> pa.RecordBatch:
        columns = {name: queries.column(name).to_pylist() for name in queries.schema.names}
        request = self._request(columns)
        outputs = self._run(request)
        ids, scores = (outputs[name] for name in (request.interface.ids, request.interface.scores))
        rows = queries.num_rows
        if ids.ndim != 2 or ids.shape != scores.shape or len(ids) != rows:
            raise ProtocolError(
                f"{self.path} answered {ids.shape} candidate ids and {scores.shape} scores to "
                f"{rows} queries; is it a retrieval model?"
            )
        if request.may_widen and ids.shape[1] < request.k:
            self._requests.wider(ids.shape[1])
            return self._answer(queries)
        schema = self.answers(queries.schema)
        asked = queries.column(schema.names[0])
        lists = self._lists(ids[:, : request.k], scores[:, : request.k], request, asked)
        told = [
            pa.array(outputs[name], schema.field(name).type)
            if name in outputs
            else pa.nulls(rows, schema.field(name).type)
            for name in schema.names[3:]
        ]
        return pa.RecordBatch.from_arrays([asked, *lists, *told], schema=schema)

    def _request(self, columns: dict[str, list[Any]]) -> LocalRequest:
        if CANDIDATES.name in columns:
            return self._requests.similar(columns[CANDIDATES.name])
        return self._requests.retrieve(
            columns[USERS.name],
            history=columns.get(HISTORY.name),
            history_ages=_known(columns.get(AGES.name)),
            history_weights=columns.get(WEIGHTS.name),
            features=self._all_features(columns),
        )

    def _all_features(self, columns: dict[str, list[Any]]) -> list[dict[str, Any]] | None:
        """Return the features of each query; `None` if none has any."""
        own = columns.get(FEATURES.name)
        if own is None:
            shared = _values(self._features)
            return [shared] * len(columns[USERS.name]) if shared else None
        return [_values({**self._features, **dict(row)}) for row in own]

    def _run(self, request: LocalRequest) -> dict[str, npt.NDArray[Any]]:
        """Run a request.

        Raises:
            ServingError: The runtime refuses it.
        """
        signature = request.interface.signature
        inputs = {name: _array(*value) for name, value in request.inputs.items()}
        try:
            return self._servable.run(signature, inputs, self._wanted(request))
        except StatusError as exc:
            kind = error_class_for_code(exc.code.name)
            what = exc.message.partition("\n")[0]  # nodes of the graph follow
            raise kind(f"{self.path}, signature {signature!r}: {what}") from exc

    def _vocabulary(self, signature: str, name: str) -> pa.StringArray | None:
        table = self._tables.get((signature, name))
        if table is None:
            return None
        try:
            keys = self._servable.run(VOCABULARY, {}, [table])[table]
        except StatusError as exc:
            raise RepositoryError(
                f"{self.path}: the list of its ids cannot be read: {exc.message}"
            ) from exc
        ids = _texts(keys.ravel())
        ids = ids.filter(pc.not_equal(ids, ""))
        return ids.take(pc.sort_indices(ids))

    def _lists(
        self,
        ids: npt.NDArray[Any],
        scores: npt.NDArray[Any],
        request: LocalRequest,
        asked: pa.StringArray,
    ) -> tuple[pa.ListArray, pa.ListArray]:
        """Return candidate ids and scores of each row, without the padding at the end.

        Raises:
            ServerError: A score is NaN.
        """
        rows, width = scores.shape
        scores = scores.astype(np.float32, copy=False)
        ends = np.arange(0, rows * width + 1, width) if width else np.zeros(rows + 1)
        finite = bool(np.isfinite(scores).all())
        if not finite:
            padding = scores == contract.PADDING_SCORE
            invalid = np.isnan(scores)
            if request.interface.ids != contract.CANDIDATE_IDS:
                # TFRS' layer for ScaNN pads with NaN, but an answer without a score is broken.
                padding |= invalid & ~invalid[:, :1]
            padded = np.logical_and.accumulate(padding[:, ::-1], axis=1).sum(axis=1)
            kept = np.arange(width) < (width - padded)[:, np.newaxis]
            if (wrong := (invalid & kept).any(axis=1)).any():
                raise self._requests.not_a_number(asked[int(wrong.argmax())].as_py())
            ids, scores = ids[kept], scores[kept]
            ends = np.concatenate([[0], np.cumsum(width - padded)])
        offsets = pa.array(ends.astype(np.int32))
        return (
            pa.ListArray.from_arrays(offsets, _texts(ids.ravel())),
            pa.ListArray.from_arrays(offsets, pa.array(scores.ravel(), pa.float32())),
        )


def _parts(queries: pa.RecordBatch) -> list[pa.RecordBatch]:
    """Return the queries in parts whose padded histories fit memory."""
    if HISTORY.name not in queries.schema.names or queries.num_rows < 2:
        return [queries]
    longest = pc.max(pc.list_value_length(queries.column(HISTORY.name))).as_py()
    rows = max(1, _CELLS // max(longest or 0, 1))
    return [queries.slice(start, rows) for start in range(0, queries.num_rows, rows)]


def _known(ages: list[list[float]] | None) -> list[list[float | None]] | None:
    """Return ages with `None` for unknown ones, as the clients take them."""
    if ages is None:
        return None
    return [[None if age == contract.UNKNOWN_AGE else age for age in row] for row in ages]


def _values(features: dict[str, list[str]]) -> dict[str, Any]:
    return {name: values[0] if len(values) == 1 else values for name, values in features.items()}


def _array(value: Any, dtype: str | None) -> npt.NDArray[Any]:
    kind = None if dtype is None else by_name(dtype)
    return np.array(value, None if kind is None else numpy_dtype(kind))


def _texts(values: npt.NDArray[Any]) -> pa.StringArray:
    """Return strings, or whole numbers as such."""
    return (
        pa.array(values, pa.string()) if values.dtype == object else pa.array(values).cast("string")
    )
