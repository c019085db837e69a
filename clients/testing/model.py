"""A toy retrieval model with versions, labels and scripted rankings.

The texts of its failures are those of TensorFlow Serving.
"""

import struct
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

from shortlist.clients import contract
from shortlist.clients.interface import RetrievalInterface
from shortlist.clients.types import State

__all__ = ["FakeModel", "FakeSignature", "Refusal"]

Specs = Mapping[str, tuple[str, Sequence[int]]]
Pairs = Sequence[tuple[str, float]]

_TOP_K: Final = 10
_IDS: Final = (*(f"c{number:02d}" for number in range(25)), "Amélie (2001)", "七人の侍")
_CANDIDATES: Final[Mapping[str, Mapping[str, Any]]] = {
    name: {"genre": "odd" if index % 2 else "even", "year": 1990 + index}
    for index, name in enumerate(_IDS)
}


class Refusal(Exception):  # noqa: N818 - the server answers with it
    """A failure to answer with."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True, kw_only=True)
class FakeSignature:
    """One signature of a fake model.

    Attributes:
        inputs: Data type and shape by input name, such as `{"x": ("DT_FLOAT", [-1])}`; -1 for
            a dimension of any size.
        outputs: Data type and shape by output name.
        run: Function of the inputs (nested lists by name) and the version that returns the
            outputs.
    """

    inputs: Specs
    outputs: Specs
    run: Callable[[Mapping[str, Any], int], Mapping[str, Any]]


def _ranked(flag: str) -> Specs:
    return {
        contract.CANDIDATE_IDS: ("DT_STRING", [-1, -1]),
        contract.SCORES: ("DT_FLOAT", [-1, -1]),
        flag: ("DT_BOOL", [-1]),
        contract.SERVABLE_VERSION: ("DT_INT64", [-1]),
    }


@dataclass(kw_only=True)
class FakeModel:
    """A retrieval model; its scores are reproducible, but have no meaning.

    Attributes:
        candidates: Attributes of each candidate by candidate id, for filters.
        rankings: Scripted answers: pairs of candidate id and score, best first, by user id (or
            candidate id, for `similar`). Histories and features change only other answers.
        unknown_users: Users that answers mark as unknown; the empty id always is.
        unknown_features: Names of features that answers count as unknown.
        seen: Candidate ids that `exclude_seen` leaves out, by user id.
        versions: State of each version.
        load_errors: Error message of each version that failed to load (and is at END).
        labels: Version of each label.
        interface: Tensors of a model that Shortlist did not export: its only signature, which
            answers 10 candidates.
        inputs: Data type and shape of the inputs that say who asks, if not a string `user_id`
            alone; the first holds the user ids. Whole numbers may be user ids.
        signatures: By name; if not set, those of the interface or the inputs, or else
            `serving_default`, `retrieve`, `retrieve_by_query`, `similar`, `embed`,
            `embed_by_query` and `rate`. Add others, or remove some.
        classify: Function of an example's features that returns pairs of class label and score.
        regress: Function of an example's features that returns its value.
    """

    candidates: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: _CANDIDATES)
    rankings: dict[str, Pairs] = field(default_factory=dict)
    unknown_users: Collection[str] = ()
    unknown_features: Collection[str] = ()
    seen: Mapping[str, Collection[str]] = field(default_factory=dict)
    versions: dict[int, State] = field(default_factory=lambda: {1: State.AVAILABLE})
    load_errors: dict[int, str] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    interface: RetrievalInterface | None = None
    inputs: Specs = field(default_factory=dict)
    signatures: dict[str, FakeSignature] = field(default_factory=dict)
    classify: Callable[[Mapping[str, Any]], Pairs] = lambda features: ()
    regress: Callable[[Mapping[str, Any]], float] = lambda features: 0.0

    def __post_init__(self) -> None:
        if self.signatures:
            return
        self.signatures = self._default_signatures()
        if self.interface is not None:
            self.signatures = self._only_signature(self.interface)
        elif self.inputs:
            for name in (contract.RETRIEVE_BY_QUERY, contract.EMBED_BY_QUERY, contract.RATE):
                del self.signatures[name]

    def score(self, query: str, candidate_id: str) -> float:
        """Return a candidate's score for a user (or another candidate) that is not scripted."""
        return _float32(zlib.crc32(f"{query}/{candidate_id}".encode()) / 2**32)

    def ranking(self, query: str, among: Iterable[str] | None = None) -> list[tuple[str, float]]:
        """Return candidates and scores for a user (or another candidate), best first.

        Args:
            query: User id or candidate id.
            among: Candidates to rank; all if not set.
        """
        ids = self.candidates if among is None else among
        if query in self.rankings:
            allowed = None if among is None else set(among)
            return [
                (name, _float32(score))
                for name, score in self.rankings[query]
                if allowed is None or name in allowed
            ]
        return sorted(((name, self.score(query, name)) for name in ids), key=lambda pair: -pair[1])

    def resolve(self, name: str, version: int | None, label: str | None) -> int:
        """Return the version that answers.

        Raises:
            Refusal: No version is available.
        """
        available = [v for v, state in self.versions.items() if state is State.AVAILABLE]
        if label is not None:
            if label not in self.labels:
                raise Refusal("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
            version = self.labels[label]
        if version is None and available:
            return max(available)
        if version is None or version not in available:
            which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise Refusal("NOT_FOUND", f"Servable not found for request: {which}")
        return version

    def run(
        self, name: str, inputs: Mapping[str, Any], version: int, *, missing: Refusal
    ) -> Mapping[str, Any]:
        """Return the outputs of a signature.

        Raises:
            Refusal: The signature does not exist (`missing`), or the inputs do not fit it.
        """
        signature = self.signatures.get(name)
        if signature is None:
            raise missing
        expected, actual = set(signature.inputs), set(inputs)
        if actual != expected:
            raise Refusal(
                "INVALID_ARGUMENT",
                f"input size does not match signature: {len(actual)}!={len(expected)} "
                f"Sent extra: {{{','.join(sorted(actual - expected))}}}. "
                f"Missing but required: {{{','.join(sorted(expected - actual))}}}.",
            )
        return signature.run(inputs, version)

    # --- signatures ------------------------------------------------------------------

    def _default_signatures(self) -> dict[str, FakeSignature]:
        users = self.inputs or {contract.USER_ID: ("DT_STRING", [-1])}
        options: Specs = {
            contract.K: ("DT_INT32", []),
            contract.EXCLUDE: ("DT_STRING", [-1, -1]),
            contract.EXCLUDE_SEEN: ("DT_BOOL", []),
            contract.FILTER_ANY: ("DT_STRING", [-1]),
            contract.FILTER_ALL: ("DT_STRING", [-1]),
            contract.FILTER_MIN: ("DT_STRING", [-1]),
            contract.FILTER_MAX: ("DT_STRING", [-1]),
        }
        fixed: Specs = {
            **_ranked(contract.KNOWN_USER),
            contract.CANDIDATE_IDS: ("DT_STRING", [-1, _TOP_K]),
            contract.SCORES: ("DT_FLOAT", [-1, _TOP_K]),
        }
        candidates: Specs = {contract.CANDIDATE_ID: ("DT_STRING", [-1])}
        queries: Specs = {
            **users,
            contract.HISTORY: ("DT_STRING", [-1, -1]),
            contract.HISTORY_AGE: ("DT_FLOAT", [-1, -1]),
            contract.HISTORY_WEIGHT: ("DT_FLOAT", [-1, -1]),
            contract.FEATURES: ("DT_STRING", [-1, -1]),
        }
        embeddings: Specs = {contract.QUERY_EMBEDDING: ("DT_FLOAT", [-1, 3])}
        known: Specs = {
            name: ("DT_INT32", [-1]) for name in (contract.KNOWN_HISTORY, contract.KNOWN_FEATURES)
        }
        return {
            contract.SERVING_DEFAULT: FakeSignature(
                inputs=users, outputs=fixed, run=self._retrieve
            ),
            contract.RETRIEVE: FakeSignature(
                inputs={**users, **options},
                outputs=_ranked(contract.KNOWN_USER),
                run=self._retrieve,
            ),
            contract.RETRIEVE_BY_QUERY: FakeSignature(
                inputs={**queries, **options, contract.EXCLUDE_HISTORY: ("DT_BOOL", [])},
                outputs={**_ranked(contract.KNOWN_USER), **known},
                run=self._retrieve,
            ),
            contract.SIMILAR: FakeSignature(
                inputs={**candidates, contract.K: ("DT_INT32", [])},
                outputs=_ranked(contract.KNOWN_CANDIDATE),
                run=self._similar,
            ),
            contract.EMBED: FakeSignature(
                inputs=users,
                outputs=embeddings,
                run=self._embed,
            ),
            contract.EMBED_BY_QUERY: FakeSignature(
                inputs=queries,
                outputs={
                    **embeddings,
                    contract.KNOWN_USER: ("DT_BOOL", [-1]),
                    **known,
                    contract.SERVABLE_VERSION: ("DT_INT64", [-1]),
                },
                run=self._embed,
            ),
            contract.RATE: FakeSignature(
                inputs={**users, **candidates},
                outputs={contract.RATING: ("DT_FLOAT", [-1])},
                run=self._rate,
            ),
        }

    def _only_signature(self, interface: RetrievalInterface) -> dict[str, FakeSignature]:
        ids, scores = interface.ids, interface.scores

        def run(inputs: Mapping[str, Any], version: int) -> Mapping[str, Any]:
            outputs = self._retrieve(inputs, version)
            return {ids: outputs[contract.CANDIDATE_IDS], scores: outputs[contract.SCORES]}

        self.inputs = self.inputs or {interface.query: ("DT_STRING", [-1])}
        outputs: Specs = {ids: ("DT_STRING", [-1, _TOP_K]), scores: ("DT_FLOAT", [-1, _TOP_K])}
        return {interface.signature: FakeSignature(inputs=self.inputs, outputs=outputs, run=run)}

    def _retrieve(self, inputs: Mapping[str, Any], version: int) -> Mapping[str, Any]:
        k = int(inputs.get(contract.K, _TOP_K))
        allowed = [name for name in self.candidates if _passes(self.candidates[name], inputs)]
        filtered = len(allowed) < len(self.candidates)
        rows = []
        for index, (user, query) in enumerate(zip(*self._queries(inputs), strict=True)):
            excluded = set(inputs.get(contract.EXCLUDE, {index: ()})[index])
            if inputs.get(contract.EXCLUDE_SEEN):
                excluded |= set(self.seen.get(user, ()))
            if inputs.get(contract.EXCLUDE_HISTORY):
                excluded |= set(inputs[contract.HISTORY][index])
            best = self.ranking(query, allowed if filtered else None)
            row = [pair for pair in best if pair[0] not in excluded][:k]
            padding = (contract.PADDING_CANDIDATE_ID, contract.PADDING_SCORE)
            rows.append(row + [padding] * (min(k, len(self.candidates)) - len(row)))
        return {**_columns(rows, version), **self._known(inputs)}

    def _queries(self, inputs: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """Return the user of each row, and what its scores depend on."""
        users = self._users(inputs)
        names = (contract.HISTORY, contract.FEATURES, *list(self.inputs)[1:])
        columns = [_texts(inputs.get(name, [()] * len(users))) for name in names]
        queries = [
            user if user in self.rankings else "/".join(filter(None, (user, *chain(*values))))
            for user, *values in zip(users, *columns, strict=True)
        ]
        return users, queries

    def _users(self, inputs: Mapping[str, Any]) -> list[str]:
        name = next(iter(self.inputs), contract.USER_ID)
        dtype, _ = self.inputs.get(name, ("DT_STRING", ()))
        rows = _texts(inputs[name])
        if any(isinstance(value, str) != (dtype == "DT_STRING") for value in _flat(inputs[name])):
            raise Refusal("INVALID_ARGUMENT", f"input {name!r} is not {dtype}")
        return ["/".join(row) for row in rows]

    def _known(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return which users, and how many events and features of each, the model knows."""
        users = self._users(inputs)
        known = {
            contract.KNOWN_USER: [bool(user) and user not in self.unknown_users for user in users]
        }
        if contract.HISTORY not in inputs:
            return known
        events = [sum(map(self.candidates.__contains__, row)) for row in inputs[contract.HISTORY]]
        features = [
            sum(bool(text) and text.partition("=")[0] not in self.unknown_features for text in row)
            for row in inputs.get(contract.FEATURES, [()] * len(users))
        ]
        return {**known, contract.KNOWN_HISTORY: events, contract.KNOWN_FEATURES: features}

    def _similar(self, inputs: Mapping[str, Any], version: int) -> Mapping[str, Any]:
        queries, k = inputs[contract.CANDIDATE_ID], int(inputs.get(contract.K, _TOP_K))
        rows = [[pair for pair in self.ranking(query) if pair[0] != query][:k] for query in queries]
        known = [query in self.candidates for query in queries]
        return {**_columns(rows, version), contract.KNOWN_CANDIDATE: known}

    def _embed(self, inputs: Mapping[str, Any], version: int) -> Mapping[str, Any]:
        users, queries = self._queries(inputs)
        vectors = [[self.score(query, str(axis)) for axis in range(3)] for query in queries]
        if contract.HISTORY not in inputs:
            return {contract.QUERY_EMBEDDING: vectors}
        versions = {contract.SERVABLE_VERSION: [version] * len(users)}
        return {contract.QUERY_EMBEDDING: vectors, **self._known(inputs), **versions}

    def _rate(self, inputs: Mapping[str, Any], version: int) -> Mapping[str, Any]:
        pairs = zip(inputs[contract.USER_ID], inputs[contract.CANDIDATE_ID], strict=True)
        return {contract.RATING: [self.score(user, candidate) for user, candidate in pairs]}


def _flat(values: Sequence[Any]) -> list[Any]:
    return [item for row in values for item in (row if isinstance(row, list | tuple) else [row])]


def _texts(values: Sequence[Any]) -> list[list[str]]:
    """Return the values of each row as strings; a row may be a single value."""
    return [list(map(str, _flat([row]))) for row in values]


def _float32(value: float) -> float:
    (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    return float(rounded)


def _columns(rows: list[list[tuple[str, float]]], version: int) -> dict[str, Any]:
    return {
        contract.CANDIDATE_IDS: [[name for name, _ in row] for row in rows],
        contract.SCORES: [[score for _, score in row] for row in rows],
        contract.SERVABLE_VERSION: [version] * len(rows),
    }


def _passes(attributes: Mapping[str, Any], inputs: Mapping[str, Any]) -> bool:
    """Return whether a candidate satisfies the filter inputs."""
    pairs = {f"{name}={value}" for name, value in attributes.items()}

    def bounds(name: str) -> Iterable[tuple[float, float]]:
        for text in inputs.get(name, ()):
            attribute, _, bound = text.partition("=")
            yield float(attributes[attribute]), float(bound)

    any_of = set(inputs.get(contract.FILTER_ANY, ()))
    return (
        (not any_of or bool(pairs & any_of))
        and set(inputs.get(contract.FILTER_ALL, ())) <= pairs
        and all(value >= bound for value, bound in bounds(contract.FILTER_MIN))
        and all(value <= bound for value, bound in bounds(contract.FILTER_MAX))
    )
