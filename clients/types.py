"""Arguments and results of the clients: frozen, typed, the same on every transport."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from numbers import Integral
from typing import Any, overload

from shortlist.clients._arguments import mapping, number, text, texts

__all__ = [
    "Classification",
    "Embedding",
    "Exclude",
    "Features",
    "Filter",
    "Metadata",
    "ModelStatus",
    "Prediction",
    "Ranking",
    "Rating",
    "Retrieval",
    "Signature",
    "Similar",
    "State",
    "TensorSpec",
    "VersionStatus",
]

# Candidate ids to leave out: for all users, or by user id.
Exclude = Sequence[str] | Mapping[str, Sequence[str]]
# Values of one user's (or one request's) features by name.
Features = Mapping[str, str | float | Sequence[str | float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Candidates, best first; iterates over `(candidate_id, score)` pairs.

    Attributes:
        candidate_ids: At most `k` candidate ids, best first.
        scores: Score of each candidate; higher is better.
        version: Servable version that answered; `None` if unknown.
        shards_missing: Numbers of the shards that did not answer a `ShardedClient` which allows
            that.
    """

    candidate_ids: tuple[str, ...]
    scores: tuple[float, ...]
    version: int | None = None
    shards_missing: tuple[int, ...] = ()

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return zip(self.candidate_ids, self.scores, strict=True)

    def __len__(self) -> int:
        return len(self.candidate_ids)

    @overload
    def __getitem__(self, index: int) -> tuple[str, float]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[str, float]]: ...
    def __getitem__(self, index: int | slice) -> tuple[str, float] | list[tuple[str, float]]:
        if isinstance(index, slice):
            return list(zip(self.candidate_ids[index], self.scores[index], strict=True))
        return self.candidate_ids[index], self.scores[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval(Ranking):
    """Candidates for one user.

    Attributes:
        user_id: User id; empty without a user.
        known_user: True if training met the user id. All unknown users without history and
            features get the same answer. `None` if the servable does not say.
        label: Version label of the request, for instance the one that a `Split` chose.
        known_history: Number of events in the history whose candidate the version knows; `None`
            for calls without history and features.
        known_features: Number of features, counting each value, that the version knows by name and
            value; `None` for such calls, or if the servable does not say.
    """

    user_id: str
    known_user: bool | None = None
    label: str | None = None
    known_history: int | None = None
    known_features: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Similar(Ranking):
    """The most similar candidates of one candidate.

    Attributes:
        candidate_id: Candidate id of the query.
        known_candidate: True if the corpus contains it; `None` if the servable does not say.
    """

    candidate_id: str
    known_candidate: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """Embedding of one user by the query tower.

    Attributes:
        user_id: User id; empty without a user.
        values: `[d]` floats.
        known_user: As in `Retrieval`.
        version: As in `Ranking`.
        known_history: As in `Retrieval`.
        known_features: As in `Retrieval`.
    """

    user_id: str
    values: tuple[float, ...]
    known_user: bool | None = None
    version: int | None = None
    known_history: int | None = None
    known_features: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """Predicted rating of one candidate by one user.

    Attributes:
        user_id: User id.
        candidate_id: Candidate id.
        rating: Predicted rating, on the scale of the training data.
        version: As in `Ranking`.
    """

    user_id: str
    candidate_id: str
    rating: float
    version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction(Mapping[str, Any]):
    """Outputs of one signature by name.

    Attributes:
        outputs: Nested lists of Python values, or NumPy arrays, by output name.
            Strings are `str` if all are UTF-8 and the name does not end in `_bytes`,
            otherwise `bytes`.
        model: Model name.
        version: As in `Ranking`.
    """

    outputs: Mapping[str, Any]
    model: str
    version: int | None = None

    def __getitem__(self, name: str) -> Any:
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """Classes of one example; iterates over `(label, score)` pairs in the model's order.

    Attributes:
        labels: Class labels; empty strings if the signature has no classes.
        scores: Score of each class; zeros if the signature has no scores.
    """

    labels: tuple[str, ...]
    scores: tuple[float, ...]

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return zip(self.labels, self.scores, strict=True)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Type and shape of one input or output.

    Attributes:
        dtype: TensorFlow's name, such as `DT_STRING`.
        shape: Sizes of the dimensions, `None` for an unknown size; `None` if the rank is unknown.
        tensor_name: Name of the tensor in the graph.
    """

    dtype: str
    shape: tuple[int | None, ...] | None
    tensor_name: str

    def __str__(self) -> str:
        """Return type and shape, such as `DT_STRING [?, 10]`."""
        if self.shape is None:
            return f"{self.dtype} of any shape"
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.dtype} [{sizes}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature of a servable.

    Attributes:
        inputs: Specification of each input, by name.
        outputs: Specification of each output, by name.
        method_name: Kind of API, such as `tensorflow/serving/predict`.
    """

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    method_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """The signatures of one servable.

    Attributes:
        model: Model name.
        version: Version that answered.
        signatures: Signatures by name.
    """

    model: str
    version: int | None
    signatures: Mapping[str, Signature]


class State(IntEnum):
    """States of a version, with the server's own names and numbers."""

    UNKNOWN = 0
    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionStatus:
    """State of one version.

    Attributes:
        version: Version number.
        state: State. END with an error means that loading failed, END without one that the
            version was unloaded on purpose.
        error_code: Name of the status code; `OK` without an error.
        error_message: The server's error message; `None` without an error.
    """

    version: int
    state: State
    error_code: str = "OK"
    error_message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """States of a model's versions, in the server's order.

    Attributes:
        model: Model name.
        versions: Status of each version that the server knows.
    """

    model: str
    versions: tuple[VersionStatus, ...]

    @property
    def available(self) -> list[int]:
        """Return the versions that answer requests, newest first."""
        available = [entry.version for entry in self.versions if entry.state is State.AVAILABLE]
        return sorted(available, reverse=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Conditions on the attributes of candidates; all four must hold.

    `Filter(any={"genre": ["Comedy", "Drama"]}, min={"year": 1990})` allows comedies and
    dramas since 1990.

    Attributes:
        any: Values by attribute, strings or whole numbers; at least one of these pairs must hold.
        all: Values by attribute; every pair must hold.
        min: Inclusive lower bound by attribute.
        max: Inclusive upper bound by attribute.
    """

    any: Mapping[str, Sequence[str]] = field(default_factory=dict)
    all: Mapping[str, Sequence[str]] = field(default_factory=dict)
    min: Mapping[str, float] = field(default_factory=dict)
    max: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for which, example, checked in (
            ("any", "{'genre': ['Comedy']}", _values),
            ("all", "{'genre': ['Comedy']}", _values),
            ("min", "{'year': 1990}", number),
            ("max", "{'year': 1990}", number),
        ):
            name = f"Filter({which}=…)"
            given = mapping(name, getattr(self, which), example=example)
            conditions = {
                text(f"an attribute of {name}", attribute): checked(
                    f"{attribute!r} of {name}", value
                )
                for attribute, value in given.items()
            }
            object.__setattr__(self, which, conditions)


def _values(name: str, values: Any) -> list[str]:
    """Return values of an attribute as strings, whole numbers and bools too."""
    if isinstance(values, Iterable) and not isinstance(values, str | bytes):
        values = [str(value) if isinstance(value, Integral) else value for value in values]
    return texts(name, values)
