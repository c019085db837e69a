"""What a version says about itself: the manifest that its exporter wrote, and its files."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from shortlist.clients import contract
from shortlist.clients.interface import RetrievalInterface
from shortlist.serving.errors import RepositoryError

__all__ = [
    "Buckets",
    "CorpusFacts",
    "DatasetFacts",
    "DriftReference",
    "GateResult",
    "Headline",
    "Manifest",
    "Shard",
    "UpdateFacts",
    "Verdict",
    "checksum",
    "checksums",
    "find_custom_ops",
    "read_manifest",
    "size_bytes",
    "write_manifest",
]

MANIFEST_FORMAT: Final = 1  # raised when a reader of older manifests could misread the new ones


class Verdict(StrEnum):
    """Outcome of a gate."""

    PASSED = "passed"
    FAILED = "failed"
    ALLOWED = "allowed"  # failed, and overridden by --allow
    SKIPPED = "skipped"  # nothing to measure


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """Result of one gate for one servable.

    Attributes:
        gate: Name of the gate.
        verdict: A `Verdict`, or what another release wrote.
        measured: Measured values, in words and numbers.
        required: Required values.
    """

    gate: str
    verdict: str
    measured: str
    required: str

    def __str__(self) -> str:
        return (
            f"{self.gate:<10} {self.verdict.upper():<8} {self.measured} (required: {self.required})"
        )


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """Data that a version was exported from.

    Attributes:
        name: Name, such as `movielens/100k`.
        users: Number of users.
        candidates: Number of candidates in the catalogue.
        interactions: Number of interactions.
        fingerprint: Digest of interactions and catalogue ids, whatever their order; `None` in
            manifests of earlier releases.
        source: Values of the exporter's `DataConfig` that are not the default, paths absolute;
            `None` if not recorded.
        skipped: Number of interactions that were left out, by fault; `None` if none were.
        newest: Time of the newest interaction, in seconds since the epoch; `None` if unknown.
    """

    name: str
    users: int
    candidates: int
    interactions: int
    fingerprint: str | None = None
    source: Mapping[str, Any] | None = None
    skipped: Mapping[str, int] | None = None
    newest: int | None = None


@dataclass(frozen=True, kw_only=True)
class UpdateFacts:
    """What a version changed of its parent, without training.

    Attributes:
        added: Candidates that came.
        removed: Candidates that went.
        described: Known candidates whose title or attributes changed.
        events: Events that came.
        forgotten: Users who were forgotten.
    """

    added: int = 0
    removed: int = 0
    described: int = 0
    events: int = 0
    forgotten: int = 0

    def __bool__(self) -> bool:
        """Return whether anything changed."""
        return any(vars(self).values())

    def __str__(self) -> str:
        words = {
            "candidates added": self.added,
            "removed": self.removed,
            "changed": self.described,
            "events": self.events,
            "users forgotten": self.forgotten,
        }
        return ", ".join(f"{count:,} {what}" for what, count in words.items() if count)


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The metric that summarises a version.

    Attributes:
        metric: Name with cut-off, such as `hit_rate@10`.
        protocol: `seen_excluded` or `seen_kept`.
        value: Value on the held-out part.
        interval: Ends of its 95% interval; `None` without one.
        as_served: Whether requests carried what the user did before.
    """

    metric: str
    protocol: str
    value: float
    interval: tuple[float, float] | None = None
    as_served: bool = False

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4f}"

    def as_json(self) -> dict[str, Any]:
        """Return the parts as JSON types."""
        interval = None if self.interval is None else list(self.interval)
        return {**asdict(self), "interval": interval}

    @property
    def name(self) -> str:
        """The metric with its protocol, such as `hit_rate@10 (seen excluded)`."""
        as_served = ", as served" if self.as_served else ""
        return f"{self.metric} ({self.protocol.replace('_', ' ')}{as_served})"


@dataclass(frozen=True, kw_only=True)
class CorpusFacts:
    """Numbers of candidate embeddings that no index should hold."""

    non_finite: int = 0
    zero_norm: int = 0


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """A distribution of numbers.

    Attributes:
        edges: Borders of the buckets, ascending; a number equal to one belongs below it.
        counts: Numbers in each bucket, one more than edges.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.edges) + 1:
            raise TypeError(f"{len(self.edges)} edges have {len(self.counts)} counts")


@dataclass(frozen=True, kw_only=True)
class DriftReference:
    """The held-out queries of an export, for comparison with what a version is asked later.

    Attributes:
        scores: Scores of the first candidates; `None` in a shard, whose lists are parts.
        histories: Numbers of events in the requests; `None` if these carry no histories.
        unknown_users: Share of the queries of users whom training did not meet; `None` if the
            split decides it.
    """

    scores: Buckets | None = None
    histories: Buckets | None = None
    unknown_users: float | None = None


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Part of a corpus that a servable returns: every `count`th candidate, from `number` on.

    Attributes:
        number: Number of the shard, from 0.
        count: Number of shards of the corpus.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"shard {self.number} of {self.count}"

    @property
    def positions(self) -> slice:
        """Positions of its candidates in the corpus."""
        return slice(self.number, None, self.count)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Record of how a version came to be; every part may be missing in a foreign SavedModel.

    Attributes:
        format: Format of the manifest.
        model: Model that the servable belongs to, such as `retrieval`.
        servable: Model name that requests use, such as `retrieval_ivf`.
        version: Version number.
        parent: Version that this one was updated from, or whose training it went on from; `None`
            after a training from scratch.
        update: What it changed of its parent; `None` after a training.
        created: Time of the export, in UTC.
        dataset: The training data.
        shard: Part of the corpus that it returns; `None` for all of it.
        index: Kind, exactness, parameters and measured recall of the index.
        top_k: Candidates per answer at most.
        metrics: Metrics on the held-out part by protocol, and what else was measured on it.
        config: Effective configuration of the export.
        signatures: Inputs and outputs by signature name; empty in a foreign SavedModel.
        interface: Fields of the `RetrievalInterface` if it is not the contract's, or empty.
        features: Values of the features that requests can give, by name.
        settings: Settings of the query tower, chosen on the validation part if there is one.
        warm_start: Version whose training this one started from, and the numbers of users and
            candidates that both have, `kept`, and that only one has, `new` and `gone`.
        epochs: Epochs of the training that chose their number: `epoch`, mean `loss`, and
            `validation`, the metric on the validation part or `None` if not measured.
        packages: Package versions.
        tensorflow_producer: Producer number of the graph's format.
        tensorflow_min_consumer: Oldest consumer number that can read the graph.
        ops: Ops in the graph; `None` if not recorded.
        corpus: Facts about the candidate embeddings; `None` if not recorded.
        reference: What to measure drift from; `None` if not recorded.
        files: SHA-256 by path within the version; `None` if not recorded.
        gates: Results of the gates, in the order they ran.
        extra: Entries that this release does not know, such as those of a newer exporter.
    """

    format: int = MANIFEST_FORMAT
    model: str | None = None
    servable: str | None = None
    version: int | None = None
    parent: int | None = None
    update: UpdateFacts | None = None
    created: str | None = None
    dataset: DatasetFacts | None = None
    shard: Shard | None = None
    index: Mapping[str, Any] = field(default_factory=dict)
    top_k: int | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    signatures: Mapping[str, Any] = field(default_factory=dict)
    interface: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, float] = field(default_factory=dict)
    warm_start: Mapping[str, Any] = field(default_factory=dict)
    epochs: tuple[Mapping[str, float | None], ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    tensorflow_producer: int | None = None
    tensorflow_min_consumer: int | None = None
    ops: tuple[str, ...] | None = None
    corpus: CorpusFacts | None = None
    reference: DriftReference | None = None
    files: Mapping[str, str] | None = None
    gates: tuple[GateResult, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def exported(self) -> bool:
        """Whether Shortlist exported the version, rather than published a foreign SavedModel."""
        return bool(self.signatures)

    @property
    def retrieval(self) -> RetrievalInterface | None:
        """The tensors that retrieve candidates; `None` if the manifest does not tell."""
        if not self.interface:
            return RetrievalInterface() if self.exported else None
        try:
            parts = _known(RetrievalInterface, self.interface)
            return RetrievalInterface(**{**parts, "others": tuple(parts.get("others", ()))})
        except TypeError:
            return None

    @property
    def headline(self) -> Headline | None:
        """The headline metric; hit rate@10 with seen candidates excluded in older manifests."""
        try:
            stored = self.metrics.get("headline") or {
                "metric": "hit_rate@10",
                "protocol": "seen_excluded",
                "value": self.metrics["seen_excluded"]["hit_rate@10"],
            }
            low_high = stored.get("interval")
            return Headline(
                metric=str(stored["metric"]),
                protocol=str(stored["protocol"]),
                value=float(stored["value"]),
                interval=None if low_high is None else (float(low_high[0]), float(low_high[1])),
                as_served=bool(stored.get("as_served", False)),
            )
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return None

    def as_json(self) -> dict[str, Any]:
        """Return the parts that are set, as JSON values in the order of the fields."""
        default = Manifest()
        values = {
            name: value
            for name, value in asdict(self).items()
            if name == "format" or getattr(self, name) != getattr(default, name)
        }
        if self.dataset is not None:
            facts = values["dataset"].items()
            values["dataset"] = {key: value for key, value in facts if value is not None}
        extra = values.pop("extra", {})
        return {**values, **extra}


_INTEGERS = ("format", "version", "parent", "top_k")
_PRODUCERS = ("tensorflow_producer", "tensorflow_min_consumer")
_TYPES: Final[Mapping[str, type]] = {
    **{part.name: dict for part in fields(Manifest) if part.name != "extra"},
    **dict.fromkeys(("model", "servable", "created"), str),
    **dict.fromkeys((*_INTEGERS, *_PRODUCERS), int),
    **dict.fromkeys(("ops", "gates", "epochs"), list),
}


def read_manifest(version_path: Path) -> Manifest | None:
    """Return the manifest in a version's folder, or `None` if there is none.

    Raises:
        RepositoryError: The manifest cannot be read.
    """
    file = version_path / contract.MANIFEST_FILE
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise RepositoryError(f"cannot read {file}: {exc.strerror}") from exc
    except ValueError as exc:
        raise RepositoryError(f"{file} is not valid JSON ({exc}); publish the model again") from exc
    if not isinstance(stored, dict):
        raise RepositoryError(f"{file} does not hold a JSON object; publish the model again")
    values: dict[str, Any] = {"extra": {}}
    try:
        for name, value in stored.items():
            if name not in _TYPES:
                values["extra"][name] = value
            elif value is not None:
                values[name] = _typed(name, value)
    except (TypeError, AttributeError) as exc:
        raise RepositoryError(f"{file} is not a manifest: {exc}; publish the model again") from exc
    return Manifest(**values)


def write_manifest(version_path: Path, manifest: Manifest) -> None:
    """Write the manifest into a version's folder, where the server ignores it."""
    file = version_path / contract.MANIFEST_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(manifest.as_json(), indent=2, ensure_ascii=False, allow_nan=False)
    file.write_text(f"{text}\n", encoding="utf-8")


def _typed(name: str, stored: Any) -> Any:
    if not isinstance(stored, _TYPES[name]):
        raise TypeError(f"{name} must be a JSON {_TYPES[name].__name__}, got {stored!r}")
    value: Any = stored
    match name:
        case "dataset":
            return DatasetFacts(**_known(DatasetFacts, value))
        case "update":
            return UpdateFacts(**_known(UpdateFacts, value))
        case "corpus":
            return CorpusFacts(**_known(CorpusFacts, value))
        case "reference":
            parts = _known(DriftReference, value)
            for key in ("scores", "histories"):
                if parts.get(key) is not None:
                    lists = _known(Buckets, parts[key])
                    parts[key] = Buckets(**{name: tuple(lists[name]) for name in lists})
            return DriftReference(**parts)
        case "shard":
            return Shard(**_known(Shard, value))
        case "gates":
            return tuple(GateResult(**_known(GateResult, gate)) for gate in value)
        case "ops":
            return tuple(map(str, value))
        case "epochs":
            return tuple(map(dict, value))
    return value


def _known(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {part.name for part in fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def find_custom_ops(ops: Iterable[str]) -> tuple[str, ...]:
    """Return the ops outside TensorFlow's own set, which have a namespace: `Scann>…`, sorted."""
    return tuple(sorted(op for op in ops if ">" in op))


def checksums(version_path: Path) -> dict[str, str]:
    """Return the SHA-256 of every file but the manifest, by path within the version."""
    return {
        relative: checksum(path)
        for path in sorted(version_path.rglob("*"))
        if path.is_file()
        and (relative := path.relative_to(version_path).as_posix()) != contract.MANIFEST_FILE
    }


def size_bytes(version_path: Path) -> int:
    """Return the size of all files of a version."""
    return sum(path.stat().st_size for path in version_path.rglob("*") if path.is_file())


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
