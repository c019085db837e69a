"""What a SavedModel that Shortlist did not export needs for its gates and rollouts.

Its signatures tell how it retrieves candidates. Its answers to a few queries are recorded once,
so that they can be compared after every load.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from shortlist.clients import contract
from shortlist.clients.interface import NoInterfaceError, RetrievalInterface, find_interface
from shortlist.clients.types import Signature, TensorSpec
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.golden import GoldenQuery, read_golden, write_golden
from shortlist.serving.repository.version import Manifest, checksums
from shortlist.serving.request_log.selection import SelectedLog, Selection, is_request_log
from shortlist.serving.request_log.warmup import varied_requests
from shortlist.serving.servers.check import Asked, Vocabulary, ask_in_fresh_process

__all__ = ["Choices", "Description", "describe", "find_retrieval"]

_MOST_QUERIES = 100  # of a file
_UNKNOWN = "(unknown value)"
_WRITTEN = (contract.GOLDEN_FILE, contract.WARMUP_FILE)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the publisher of a SavedModel says about it; all optional.

    Attributes:
        signature: Signature that retrieves candidates.
        input: Its input with user ids.
        ids: Its output with candidate ids.
        scores: Its output with scores.
        queries: File of JSON lines, each the inputs of a query by name, or a request log.
    """

    signature: str | None = None
    input: str | None = None
    ids: str | None = None
    scores: str | None = None
    queries: Path | None = None

    def find(self, signatures: Mapping[str, Signature]) -> RetrievalInterface:
        """Return the tensors that retrieve candidates.

        Raises:
            NoInterfaceError: There are none, or they are ambiguous.
        """
        return find_interface(
            signatures,
            signature=self.signature,
            query=self.input,
            ids=self.ids,
            scores=self.scores,
        )


def find_retrieval(
    manifest: Manifest, signatures: Mapping[str, Signature]
) -> RetrievalInterface | str:
    """Return the tensors that retrieve candidates, or why there are none."""
    known = manifest.retrieval or RetrievalInterface(signature="")
    choices = Choices()
    if known.signature:
        choices = Choices(
            signature=known.signature, input=known.query, ids=known.ids, scores=known.scores
        )
    try:
        return choices.find(signatures)
    except NoInterfaceError as exc:
        return str(exc)


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a version is published with.

    Attributes:
        manifest: Its manifest.
        note: Origin of its known queries, or why there are none; `None` if it had some before.
    """

    manifest: Manifest
    note: str | None = None


def describe(
    path: Path,
    name: str,
    version: int,
    manifest: Manifest,
    choices: Choices,
    *,
    allow_file_ops: bool = False,
) -> Description:
    """Describe a SavedModel, and write known answers and warm-up records of a foreign one.

    A version that was published before keeps what it has unless there are choices.

    Args:
        path: Folder of the copy to publish.
        name: Model name.
        version: Version number.
        manifest: Manifest of the copy.
        choices: What its publisher says about it.
        allow_file_ops: Whether to load it although it has ops that reach out of it.

    Raises:
        ModelServerError: The process that loads it failed.
        NoInterfaceError: A chosen tensor does not exist.
        RepositoryError: The file of queries cannot be read.
    """
    chosen = choices != Choices()
    if manifest.exported:
        if chosen:
            raise RepositoryError(
                "Shortlist exported this version, so its tensors and queries are known; leave out "
                "--signature, --input, --ids, --scores and --queries (a request log may stay)"
            )
        return Description(manifest=manifest)
    known = () if chosen else read_golden(path)
    if known and manifest.ops is not None:
        return Description(manifest=manifest)
    recorded = choices.queries is not None and is_request_log(choices.queries)
    given = None if choices.queries is None or recorded else _read_queries(choices.queries)
    asked = Asked(
        name=name,
        version=version,
        path=path,
        vocabulary=choices.queries is None and not known,
        allow_file_ops=allow_file_ops,
    )
    (fresh,) = ask_in_fresh_process([asked]).servables
    if fresh.error is not None or not fresh.signatures:
        return Description(manifest=manifest)  # the gates say so
    interface = _interface(choices, fresh.signatures)
    note = None
    if not known:
        signature = _signature(choices, interface, fresh.signatures)
        inputs = fresh.signatures[signature].inputs
        if recorded:
            queries = _recorded(str(choices.queries), signature)
            what = f"{len(queries)} recorded requests of {choices.queries}"
        elif given is None:
            queries, what = _generated(inputs, fresh.vocabulary.get(signature, {}))
        else:
            queries = [_typed(query, inputs, choices.queries, line) for line, query in given]
            what = f"queries of {choices.queries}"
        note = _record(asked, signature, interface, queries, what)
    # What was recorded before stays, so that the gate `complete` still sees any change.
    current = checksums(path)
    written = {file: current[file] for file in _WRITTEN if file in current}
    manifest = replace(
        manifest,
        interface={} if interface is None else asdict(interface),
        ops=fresh.ops,
        tensorflow_producer=fresh.producer,
        tensorflow_min_consumer=fresh.min_consumer,
        files=current if manifest.files is None else {**manifest.files, **written},
    )
    return Description(manifest=manifest, note=note)


def _interface(choices: Choices, signatures: Mapping[str, Signature]) -> RetrievalInterface | None:
    try:
        return choices.find(signatures)
    except NoInterfaceError:
        if choices.input or choices.ids or choices.scores:
            raise
        return None


def _signature(
    choices: Choices, interface: RetrievalInterface | None, signatures: Mapping[str, Signature]
) -> str:
    """Return the name of the signature to ask: one that retrieves, else the usual one."""
    if interface is not None:
        return interface.signature
    if choices.signature is not None and choices.signature not in signatures:
        raise NoInterfaceError(
            f"no signature is called {choices.signature!r}; there are: {', '.join(signatures)}"
        )
    usual = contract.SERVING_DEFAULT
    return choices.signature or (usual if usual in signatures else min(signatures))


def _record(
    asked: Asked,
    signature: str,
    interface: RetrievalInterface | None,
    queries: Sequence[Mapping[str, Any]],
    what: str,
) -> str:
    """Ask queries in a fresh process and write the answers, and warm-up records if it has none.

    Returns:
        What was asked, and which queries it refuses.
    """
    usual = interface or RetrievalInterface()
    golden = [
        GoldenQuery(
            signature=signature, inputs=inputs, outputs={}, ids=usual.ids, scores=usual.scores
        )
        for inputs in queries
    ]
    own = (asked.path / contract.WARMUP_FILE).is_file()
    asked = replace(asked, queries=golden, vocabulary=False, record_warmup=not own)
    (fresh,) = ask_in_fresh_process([asked]).servables
    answered, refused = [], []
    for query, answer in zip(golden, fresh.answers, strict=True):
        if isinstance(answer, str):
            shown = json.dumps(query.inputs, ensure_ascii=False)
            refused.append(f"it refuses {shown[:200]}: {answer[:300]}")
        else:
            answered.append(replace(query, outputs=answer))
    if not answered:
        return f"{refused[0]}; give queries that it answers with --queries FILE"
    write_golden(asked.path, answered)
    return f"{what}; {refused[0]}" if refused else what


def _generated(
    inputs: Mapping[str, TensorSpec], vocabulary: Mapping[str, Vocabulary]
) -> tuple[list[dict[str, Any]], str]:
    """Return queries of one row with known values and an unknown one, and what they hold."""
    columns: dict[str, list[Any]] = {}
    notes = []
    for name, spec in sorted(inputs.items()):
        known = vocabulary.get(name)
        if known is not None and known.values:
            columns[name] = [*known.values, _unknown(known.values)]
            columns[name] = [_converted(value, spec) for value in columns[name]]
            notes.append(f"{name} from its vocabulary of {known.size:,}, and an unknown one")
        else:
            columns[name] = [_default(spec)]
            notes.append(f"{name}={_default(spec)!r}")
    size = max(map(len, columns.values()), default=1)
    queries = [
        {
            name: _shaped(next(itertools.islice(itertools.cycle(values), row, None)), inputs[name])
            for name, values in columns.items()
        }
        for row in range(size)
    ]
    return queries, f"asked {', '.join(notes)}"


def _unknown(values: Sequence[str | int]) -> str | int:
    last = values[-1]
    return _UNKNOWN if isinstance(last, str) else last + 1


def _converted(value: str | int, spec: TensorSpec) -> Any:
    """Return a value of a table's type in the type of an input that is looked up in it."""
    if spec.dtype == "DT_STRING":
        return str(value)
    try:
        return int(value)
    except ValueError:
        return _default(spec)


def _default(spec: TensorSpec) -> Any:
    match spec.dtype:
        case "DT_STRING":
            return "1"
        case "DT_BOOL":
            return False
        case dtype:
            return 1 if "INT" in dtype else 1.0


def _shaped(value: Any, spec: TensorSpec) -> Any:
    """Return a value in every place of a tensor of one row."""
    shape = (None,) if spec.shape is None else spec.shape
    for size in reversed(shape):
        value = [value] * (size or 1)
    return value


def _read_queries(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the queries in a file with their line numbers."""
    queries = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise RepositoryError(f"cannot read queries from {path}: {exc}") from exc
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            query = json.loads(line)
        except ValueError as exc:
            raise RepositoryError(f"line {number} of {path} is not valid JSON: {exc}") from exc
        if not isinstance(query, dict):
            raise RepositoryError(
                f"line {number} of {path} must hold the inputs of a query by name, such as "
                f'{{"user_id": "42"}}, got {line.strip()[:80]}'
            )
        queries.append((number, query))
    if not 1 <= len(queries) <= _MOST_QUERIES:
        raise RepositoryError(f"{path} must hold 1 to {_MOST_QUERIES} queries, got {len(queries)}")
    return queries


def _recorded(log: str, signature: str) -> list[dict[str, Any]]:
    """Return the inputs of recorded requests, no user twice.

    Raises:
        LogFileError: The log cannot be read, or holds no request to the signature.
    """
    selected = SelectedLog(log, Selection(signature=signature))
    return [dict(record.inputs) for record in varied_requests(selected, _MOST_QUERIES)]


def _typed(
    query: Mapping[str, Any], inputs: Mapping[str, TensorSpec], path: Path | None, line: int
) -> dict[str, Any]:
    """Return a query of a file; a value without the dimension of the batch is one row."""
    wrong = sorted(set(inputs) ^ set(query))
    if wrong:
        state = "missing" if wrong[0] in inputs else "unknown"
        raise RepositoryError(
            f"line {line} of {path}: input {wrong[0]!r} is {state}; the signature takes "
            + ", ".join(f"{name} ({spec.dtype})" for name, spec in sorted(inputs.items()))
        )
    return {
        name: [value] if _rank(value) + 1 == _rank_of(inputs[name]) else value
        for name, value in query.items()
    }


def _rank(value: Any) -> int:
    return 1 + (_rank(value[0]) if value else 0) if isinstance(value, list) else 0


def _rank_of(spec: TensorSpec) -> int:
    return 1 if spec.shape is None else len(spec.shape)
