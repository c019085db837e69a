"""Recorded retrievals as queries that other versions and models can be asked."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shortlist.clients import contract
from shortlist.clients.interface import NoInterfaceError, RetrievalInterface, find_interface
from shortlist.clients.request_log.records import LogRecord
from shortlist.clients.types import Filter, Retrieval, Signature, TensorSpec
from shortlist.serving.request_log.sampling import DistinctSample, Reservoir
from shortlist.serving.request_log.selection import SelectedLog

__all__ = [
    "RecordedQuery",
    "distinct_queries",
    "input_rows",
    "interface_of",
    "queries_of",
    "recorded_queries",
    "sampled_queries",
]

# Inputs of Shortlist's servables: kind of their values, and number of dimensions.
_OPTIONS: Final[Mapping[str, tuple[str, int]]] = {
    contract.K: ("i", 0),
    contract.EXCLUDE: ("s", 2),
    contract.EXCLUDE_HISTORY: ("b", 0),
    contract.EXCLUDE_SEEN: ("b", 0),
    contract.FILTER_ANY: ("s", 1),
    contract.FILTER_ALL: ("s", 1),
    contract.FILTER_MIN: ("s", 1),
    contract.FILTER_MAX: ("s", 1),
    contract.HISTORY: ("s", 2),
    contract.HISTORY_AGE: ("f", 2),
    contract.HISTORY_WEIGHT: ("f", 2),
    contract.FEATURES: ("s", 2),
}
# Arguments of `retrieve` for one row, and their keys in the lines of `query --history-file`.
_LINE_KEYS: Final[Mapping[str, str]] = {
    "user_ids": "user_id",
    "history": "history",
    "history_ages": "ages",
    "history_weights": "weights",
    "features": "features",
}


@dataclass(frozen=True, kw_only=True)
class RecordedQuery:
    """One row of a recorded retrieval.

    Attributes:
        model: Model name.
        arguments: Arguments of the clients' `retrieve` that ask the same.
        answer: The recorded answer.
        time: Start of the request in epoch seconds.
        latency: Seconds until the answer of all rows; `None` if unknown.
        sampling_rate: Share of the requests that the log holds.
        inputs: The row's inputs by name, of a model that names its inputs itself; else empty.
    """

    model: str
    arguments: Mapping[str, Any]
    answer: Retrieval
    time: float
    latency: float | None
    sampling_rate: float = 1.0
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def user_id(self) -> str:
        """User id; empty without a user."""
        return self.answer.user_id

    @property
    def history(self) -> tuple[str, ...]:
        """Candidate ids of the user's events, oldest first."""
        return tuple(self.arguments.get("history", [()])[0])

    @property
    def identity(self) -> bytes:
        """What is equal for queries of one user, or for equal queries without a user."""
        return self.user_id.encode() or repr(sorted(self.arguments.items())).encode()

    def line(self) -> dict[str, Any]:
        """Return the object of a line for `query --history-file`, else `publish --queries`."""
        return dict(self.inputs) or {
            key: self.arguments[name][0]
            for name, key in _LINE_KEYS.items()
            if name in self.arguments
        }


def recorded_queries(log: SelectedLog) -> Iterator[RecordedQuery]:
    """Yield the queries of all selected retrievals; what cannot be asked again is counted."""
    for record in log.predictions(shadows=False):
        try:
            queries, problem = queries_of(record), "not a retrieval"
        except (KeyError, ValueError) as exc:
            queries, problem = [], f"not readable ({exc})"
        if record.signature == contract.RETRIEVE_BY_EMBEDDING:
            queries, problem = [], "a retrieval by an embedding, which only its version can read"
        if not queries:
            log.left_out[problem] += 1
        yield from queries


def distinct_queries(log: SelectedLog, most: int) -> list[RecordedQuery]:
    """Return a sample of the queries in which no user appears twice.

    Raises:
        LogFileError: There are none.
    """
    sample = DistinctSample[RecordedQuery](most)
    for query in recorded_queries(log):
        sample.add(query.identity, query)
    queries = sample.items()
    log.require(len(queries), "retrieval that can be asked again")
    return queries


def sampled_queries(
    log: SelectedLog, most: int, *, observe: Callable[[RecordedQuery], None] = lambda query: None
) -> tuple[list[RecordedQuery], int]:
    """Return a sample of all queries, in order of the log, and how many there are.

    Args:
        log: Records.
        most: Queries to return.
        observe: Called with every query, also with those that are not in the sample.

    Raises:
        LogFileError: There are none.
    """
    sample = Reservoir[RecordedQuery](most)
    for query in recorded_queries(log):
        observe(query)
        sample.add(query)
    log.require(sample.seen, "retrieval that can be asked again")
    return sample.items(), sample.seen


def input_rows(log: SelectedLog, names: Sequence[str], most: int) -> list[dict[str, Any]]:
    """Return a sample of the rows of requests that have these inputs, in order of the log.

    Raises:
        LogFileError: There are none.
    """
    sample = Reservoir[dict[str, Any]](most)
    for record in log.predictions():
        try:
            if not record.input_tensors.keys() >= {*names}:
                log.left_out["other inputs"] += 1
                continue
            rows = list(zip(*(record.inputs[name] for name in names), strict=True))
        except (TypeError, ValueError) as exc:  # a scalar, or columns of different lengths
            log.left_out[f"not readable ({exc})"] += 1
            continue
        for row in rows:
            sample.add(dict(zip(names, row, strict=True)))
    log.require(sample.seen, f"requests with the inputs {', '.join(names)}")
    return sample.items()


def queries_of(record: LogRecord) -> list[RecordedQuery]:
    """Return the rows of a record; none if it is not a retrieval for users.

    Raises:
        ValueError: The tensors contradict themselves, or their strings are not text.
    """
    interface = interface_of(record)
    if interface is None:
        return []
    inputs, answers = record.inputs, record.retrievals
    _check_inputs(record.input_tensors, len(answers))
    shared = _shared(inputs)
    others = interface.others
    named = [interface.query, *others] if others or interface.query != contract.USER_ID else []
    rows = []
    for row, answer in enumerate(answers):
        user = _cell(inputs[interface.query], row)
        features = {name: _cell(inputs[name], row) for name in interface.others}
        arguments = {"user_ids": [str(user)], **_row(inputs, row), **shared}
        if features:
            arguments["features"] = [features]
        rows.append(
            RecordedQuery(
                model=record.model,
                arguments=arguments,
                answer=answer,
                time=record.time,
                latency=record.latency,
                sampling_rate=record.sampling_rate,
                inputs={name: inputs[name][row] for name in named},
            )
        )
    return rows


def interface_of(record: LogRecord) -> RetrievalInterface | None:
    """Return the tensors of a retrieval by user id; features of a tower are `others`."""
    found = record.interface
    if found is None:
        return None
    inputs = record.input_tensors
    if found.query in inputs:
        others = tuple(sorted(set(inputs) - {found.query, *_OPTIONS}))
        return RetrievalInterface(
            signature=record.signature,
            query=found.query,
            ids=found.ids,
            scores=found.scores,
            others=others,
        )
    own = Signature(  # a tower from elsewhere has inputs of its own and outputs of ours
        inputs=_specs({name: tensor for name, tensor in inputs.items() if name not in _OPTIONS}),
        outputs=_specs(record.output_tensors),
        method_name="",
    )
    try:
        return find_interface({record.signature: own}, signature=record.signature)
    except NoInterfaceError:
        return None


def _check_inputs(tensors: Mapping[str, Any], rows: int) -> None:
    """Refuse inputs that have a name of ours and another form, or not a value for each row."""
    for name, tensor in tensors.items():
        kind, rank = _OPTIONS.get(name, (tensor.dtype.kind, max(len(tensor.shape), 1)))
        per_row = rank == 2 or name not in _OPTIONS  # else all rows share it
        if (tensor.dtype.kind, len(tensor.shape)) != (kind, rank):
            raise ValueError(
                f"input {name!r} is {tensor.dtype.name} of {len(tensor.shape)} dimensions"
            )
        if per_row and tensor.shape[0] != rows:
            raise ValueError(f"input {name!r} does not have a row for each answer")


def _specs(tensors: Mapping[str, Any]) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(dtype=tensor.dtype.name, shape=tensor.shape, tensor_name="")
        for name, tensor in tensors.items()
    }


def _cell(values: Any, row: int) -> Any:
    """Return the value of a row of `[batch]`, or of `[batch, 1]`."""
    value = values[row]
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _row(inputs: Mapping[str, Any], row: int) -> dict[str, Any]:
    """Return the arguments that each row has a value of its own for."""

    def ids(name: str) -> list[str]:
        values = inputs.get(name)
        return [value for value in values[row] if value] if values else []

    def numbers(name: str, count: int) -> list[float]:
        values = inputs.get(name)
        return values[row][:count] if values else []

    arguments: dict[str, Any] = {}
    if history := ids(contract.HISTORY):
        arguments["history"] = [history]
        if ages := numbers(contract.HISTORY_AGE, len(history)):
            arguments["history_ages"] = [[age if age >= 0 else None for age in ages]]
        if weights := numbers(contract.HISTORY_WEIGHT, len(history)):
            arguments["history_weights"] = [weights]
    if pairs := ids(contract.FEATURES):
        arguments["features"] = [_grouped(pairs)]
    if exclude := ids(contract.EXCLUDE):
        arguments["exclude"] = exclude
    return arguments


def _shared(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that the rows of a request have in common."""
    arguments: dict[str, Any] = {}
    if contract.K in inputs:
        arguments["k"] = int(inputs[contract.K])
    for name in (contract.EXCLUDE_HISTORY, contract.EXCLUDE_SEEN):
        if name in inputs:
            arguments[name] = bool(inputs[name])
    chosen = Filter(
        any=_grouped(inputs.get(contract.FILTER_ANY, ())),
        all=_grouped(inputs.get(contract.FILTER_ALL, ())),
        min=_bounds(inputs.get(contract.FILTER_MIN, ())),
        max=_bounds(inputs.get(contract.FILTER_MAX, ())),
    )
    if chosen != Filter():
        arguments["filter"] = chosen
    return arguments


def _grouped(pairs: Iterable[str]) -> dict[str, list[str]]:
    """Return the values of `name=value` texts by name."""
    values: dict[str, list[str]] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        values.setdefault(name, []).append(value)
    return values


def _bounds(pairs: Iterable[str]) -> dict[str, float]:
    return {name: float(value) for name, (value, *_) in _grouped(pairs).items()}
