"""Requests and answers, independent of the transport.

Treat all as frozen; those that every call creates are not, which saves a microsecond each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shortlist.clients._arguments import text, whole
from shortlist.clients._codecs.tensors import Tensor
from shortlist.clients.contract import USER_ID

__all__ = [
    "ClassifyRequest",
    "Input",
    "MetadataRequest",
    "Outputs",
    "PredictRequest",
    "RegressRequest",
    "ReloadRequest",
    "Request",
    "StatusRequest",
    "Target",
]


_set = object.__setattr__


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A servable; its newest version if neither version nor label is set."""

    model: str
    version: int | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        _set(self, "model", text("model", self.model))
        if self.version is not None and self.label is not None:
            raise ValueError(
                f"pass a version or a label, not both: version={self.version}, label={self.label!r}"
            )
        if self.version is not None:
            _set(self, "version", whole("version", self.version, least=0, most=2**63 - 1))
        if self.label is not None:
            _set(self, "label", text("label", self.label))

    def __str__(self) -> str:
        if self.version is not None:
            return f"servable {self.model!r} version {self.version}"
        if self.label is not None:
            return f"servable {self.model!r} label {self.label!r}"
        return f"servable {self.model!r}"


@dataclass(slots=True)
class Input:
    """A value and its element type; `None` derives the type from the value."""

    value: Any
    dtype: str | None = None


@dataclass(slots=True, kw_only=True)
class PredictRequest:
    """Request to run a signature; answered by `Outputs`."""

    target: Target
    signature: str
    inputs: Mapping[str, Input]
    outputs: Sequence[str] = ()  # outputs to return; the transport may return more
    only_output: str | None = None  # name of a single output that comes unnamed
    operation: str = "predict"
    user_input: str = USER_ID  # name of the input with user ids, if there is one


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyRequest:
    """Request for classes; answered by a list of `Classification`."""

    target: Target
    signature: str | None
    examples: Sequence[Mapping[str, Any]]
    context: Mapping[str, Any] | None = None
    operation: str = "classify"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressRequest:
    """Request for values; answered by a list of floats."""

    target: Target
    signature: str | None
    examples: Sequence[Mapping[str, Any]]
    context: Mapping[str, Any] | None = None
    operation: str = "regress"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRequest:
    """Request for states; answered by `ModelStatus`."""

    target: Target
    operation: str = "status"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataRequest:
    """Request for signatures; answered by `Metadata`."""

    target: Target
    operation: str = "metadata"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadRequest:
    """Request to replace the server's configuration; answered by `None`."""

    config: Any
    target: None = None
    operation: str = "reload_config"


Request = (
    PredictRequest
    | ClassifyRequest
    | RegressRequest
    | StatusRequest
    | MetadataRequest
    | ReloadRequest
)


@dataclass(slots=True, kw_only=True)
class Outputs:
    """Answer to a `PredictRequest`."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    version: int | None = None
