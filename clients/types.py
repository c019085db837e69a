"""What the clients take and return: frozen, typed, the same on every transport."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, overload

__all__ = [
    "Classification",
    "Embedding",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Candidates, best first; iterating gives `(candidate_id, score)` pairs.

    Attributes:
        candidate_ids: At most `k` candidate ids, best first.
        scores: The score of each, higher is better.
        version: The servable version that answered; None where neither the transport
            nor the servable tells.
    """

    candidate_ids: tuple[str, ...]
    scores: tuple[float, ...]
    version: int | None = None

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
        user_id: Whom they are for.
        known_user: Whether the model has met the user; a stranger gets the same answer
            as every other stranger. None where the servable does not tell.
        label: The version label that was asked, for instance the one a `Split` chose.
    """

    user_id: str
    known_user: bool | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Similar(Ranking):
    """Candidates like one candidate.

    Attributes:
        candidate_id: What they are like.
        known_candidate: Whether the corpus holds it; None where the servable does not tell.
    """

    candidate_id: str
    known_candidate: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """The query tower's answer for one user.

    Attributes:
        user_id: The user.
        values: `[d]` floats.
        known_user: As in `Retrieval`.
        version: As in `Ranking`.
    """

    user_id: str
    values: tuple[float, ...]
    known_user: bool | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """Predicted rating of one candidate by one user.

    Attributes:
        user_id: The user.
        candidate_id: The candidate.
        rating: On the scale of the ratings that the model was trained on.
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
        outputs: By output name: nested lists of Python values, or NumPy arrays.
            Strings are `str` where all are UTF-8 and the name does not end in `_bytes`,
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
    """Classes of one example; iterating gives `(label, score)` pairs in the model's order.

    Attributes:
        labels: Class labels; empty strings where the signature has no classes.
        scores: The score of each; zeros where the signature has no scores.
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
        shape: Sizes, None for an unknown one; None as a whole for an unknown rank.
        tensor_name: Name of the tensor in the graph.
    """

    dtype: str
    shape: tuple[int | None, ...] | None
    tensor_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature of a servable.

    Attributes:
        inputs: By input name.
        outputs: By output name.
        method_name: Such as `tensorflow/serving/predict`.
    """

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    method_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """The signatures of one servable.

    Attributes:
        model: Model name.
        version: Which version answered.
        signatures: By signature name.
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
        state: Its state. END without an error means unloaded on purpose, END with one
            that the load failed.
        error_code: Name of the status code, `OK` where there is no error.
        error_message: What the server says went wrong; None where nothing did.
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
        versions: One entry for each version that the server knows of.
    """

    model: str
    versions: tuple[VersionStatus, ...]

    @property
    def available(self) -> list[int]:
        """Versions that answer requests, newest first."""
        found = [entry.version for entry in self.versions if entry.state is State.AVAILABLE]
        return sorted(found, reverse=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which candidates may be retrieved, by their attributes; all four must hold.

    `Filter(any={"genre": ["Comedy", "Drama"]}, min={"year": 1990})` wants comedies and
    dramas from 1990 on.

    Attributes:
        any: Attribute to values; at least one of all these pairs must hold.
        all: Attribute to values; every one of these pairs must hold.
        min: Attribute to its inclusive lower bound.
        max: Attribute to its inclusive upper bound.
    """

    any: Mapping[str, Sequence[str]] = field(default_factory=dict)
    all: Mapping[str, Sequence[str]] = field(default_factory=dict)
    min: Mapping[str, float] = field(default_factory=dict)
    max: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for which in ("any", "all"):
            for attribute, values in getattr(self, which).items():
                if isinstance(values, str):
                    raise ValueError(
                        f"Filter({which}={{{attribute!r}: ...}}) takes a list of values, got the "
                        f"string {values!r}; write [{values!r}]"
                    )
