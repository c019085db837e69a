"""Interfaces between the parts of the embedded server.

The transports (REST, gRPC) ask a `ServableSource` for a `Servable` and run it; they know
nothing of polling, loading or configuration. `lifecycle` implements `ServableSource`,
`runtime` implements `Servable`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from shortlist.clients.types import State
from shortlist.serving.embedded.api.errors import Code

__all__ = ["Servable", "ServableSource", "ServableState", "always_active"]


def always_active() -> bool:
    """Return True: the caller waits for the answer."""
    return True


@dataclass(frozen=True, kw_only=True)
class ServableState:
    """State of one version, with the error if loading failed; see `GetModelStatus`."""

    version: int
    state: State
    error_code: Code = Code.OK
    error_message: str = ""


class Servable(Protocol):
    """One loaded version of one model.

    Attributes:
        name: Model name.
        version: Version number.
    """

    name: str
    version: int

    @property
    def signatures(self) -> Mapping[str, Any]:
        """`SignatureDef` messages by signature name."""
        ...

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, npt.NDArray[Any]],
        output_names: Sequence[str],
        *,
        timeout: float | None = None,
        active: Callable[[], bool] = always_active,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run one signature.

        Args:
            signature_name: A key of `signatures`.
            inputs: Arrays by the signature's input names (not tensor names).
            output_names: Outputs of the signature to compute.
            timeout: Time limit in seconds.
            active: Returns False if the caller has gone; asked between parts of a long run.

        Raises:
            StatusError: The runtime refused the inputs, an op failed, the time limit was
                exceeded, or the caller has gone.
        """
        ...

    def run_tensors(
        self,
        feeds: Mapping[str, npt.NDArray[Any]],
        fetches: Sequence[str],
        *,
        timeout: float | None = None,
    ) -> list[npt.NDArray[Any]]:
        """Run several signatures at once, by the names of their tensors in the graph.

        Args:
            feeds: Arrays by tensor name.
            fetches: Names of the tensors to compute.
            timeout: Time limit in seconds.

        Raises:
            StatusError: As `run`.
        """
        ...

    def close(self) -> None:
        """Free the resources of the servable, which must not run any more."""
        ...


class ServableSource(Protocol):
    """Source of servables and their states, for the transports."""

    def models(self) -> Mapping[str, Mapping[str, int]]:
        """Return the configured models: version by label, by model name, sorted."""
        ...

    def acquire(
        self, name: str, *, version: int | None = None, label: str | None = None
    ) -> AbstractContextManager[Servable]:
        """Return a loaded servable, which stays loaded until the context ends.

        Raises:
            StatusError: No such model, version or label is available.
        """
        ...

    def statuses(self, name: str, *, version: int | None = None) -> list[ServableState]:
        """Return the states of a model's versions, highest version first, or of one version.

        Raises:
            StatusError: NOT_FOUND; the model or the version is unknown.
        """
        ...

    def reload(self, config: Any, *, keep_waiting: Callable[[], bool] = lambda: True) -> None:
        """Replace the whole configuration.

        Wait until each new model has become available or has failed.

        Args:
            config: A `ModelServerConfig` message.
            keep_waiting: Called repeatedly while waiting; False gives up.

        Raises:
            StatusError: The configuration was refused, or a new model did not become available.
        """
        ...
