"""The interface of the blocking clients, for code that takes either transport."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from shortlist.clients import contract
from shortlist.clients.split import Split
from shortlist.clients.types import (
    Classification,
    Embedding,
    Exclude,
    Filter,
    Metadata,
    ModelStatus,
    Prediction,
    Rating,
    Retrieval,
    Similar,
)

__all__ = ["RetrievalClient"]


class RetrievalClient(Protocol):
    """Interface of `RestClient` and `GrpcClient`; see `GrpcClient` for the methods."""

    def retrieve(
        self,
        user_ids: Sequence[str],
        *,
        k: int = contract.DEFAULT_K,
        exclude: Exclude | None = None,
        exclude_seen: bool = False,
        filter: Filter | None = None,  # noqa: A002
        model: str | None = None,
        version: int | None = None,
        label: str | Split | None = None,
        timeout: float | None = None,
    ) -> list[Retrieval]:
        """Return candidates for each user."""
        ...

    def similar(
        self,
        candidate_ids: Sequence[str],
        *,
        k: int = contract.DEFAULT_K,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[Similar]:
        """Return the most similar candidates of each candidate."""
        ...

    def embed(
        self,
        user_ids: Sequence[str],
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[Embedding]:
        """Return the embedding of each user."""
        ...

    def rate(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[Rating]:
        """Return the predicted rating of each pair."""
        ...

    def predict(
        self,
        inputs: Mapping[str, Any],
        *,
        signature: str = contract.SERVING_DEFAULT,
        outputs: Sequence[str] = (),
        arrays: bool | None = None,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> Prediction:
        """Run any signature."""
        ...

    def classify(
        self,
        examples: Sequence[Mapping[str, Any]],
        *,
        context: Mapping[str, Any] | None = None,
        signature: str | None = None,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[Classification]:
        """Return the classes of each example."""
        ...

    def regress(
        self,
        examples: Sequence[Mapping[str, Any]],
        *,
        context: Mapping[str, Any] | None = None,
        signature: str | None = None,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[float]:
        """Return the value of each example."""
        ...

    def metadata(
        self,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> Metadata:
        """Return the signatures of a servable."""
        ...

    def status(
        self, *, model: str | None = None, version: int | None = None, timeout: float | None = None
    ) -> ModelStatus:
        """Return the states of a model's versions."""
        ...

    def wait_until_available(
        self,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float = contract.DEFAULT_WAIT_TIMEOUT,
        poll_interval: float = 0.1,
    ) -> ModelStatus:
        """Poll until the servable is AVAILABLE."""
        ...

    def reload_config(self, config: Any, *, timeout: float | None = None) -> None:
        """Replace the server's configuration."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...
