"""What the parts of the embedded server know of one another.

The transports (REST, gRPC) ask a `ServableSource` for a `Servable` and run it; they
know nothing of pollers, versions' lives or configuration. The manager implements
`ServableSource`; the runtime implements `Servable`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from shortlist.clients.types import State
from shortlist.serving.embedded.api.errors import Code

__all__ = ["Servable", "ServableSource", "ServableState"]


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
    ) -> dict[str, npt.NDArray[Any]]:
        """Runs one signature.

        Args:
            signature_name: A key of `signatures`.
            inputs: Arrays by the signature's input names (not tensor names).
            output_names: Which of the signature's outputs to compute.
            timeout: Seconds after which the run is cut off.

        Raises:
            StatusError: The runtime refused the inputs, an op failed, or time is up.
        """
        ...

    def run_tensors(
        self,
        feeds: Mapping[str, npt.NDArray[Any]],
        fetches: Sequence[str],
        *,
        timeout: float | None = None,
    ) -> list[npt.NDArray[Any]]:
        """Runs several signatures at once, by the names of their tensors in the graph.

        Args:
            feeds: Arrays by tensor name.
            fetches: Names of the tensors to compute.
            timeout: Seconds after which the run is cut off.

        Raises:
            StatusError: As `run`.
        """
        ...

    def close(self) -> None:
        """Frees what the servable holds; nothing may run any more."""
        ...


class ServableSource(Protocol):
    """Where the transports get servables and their states from."""

    def acquire(
        self, name: str, *, version: int | None = None, label: str | None = None
    ) -> AbstractContextManager[Servable]:
        """A loaded servable, kept from unloading until the context ends.

        Raises:
            StatusError: No such model, version or label is available.
        """
        ...

    def statuses(self, name: str, *, version: int | None = None) -> list[ServableState]:
        """States of a model's versions, newest first as the real server lists them.

        Raises:
            StatusError: Nothing is known of the model or of the version.
        """
        ...

    def reload(self, config: Any, *, wanted: Callable[[], bool] = lambda: True) -> None:
        """Replaces the whole configuration by a `ModelServerConfig` message.

        Waits until models that are new have become available or have failed.

        Args:
            config: The message.
            wanted: Asked now and then while waiting; False, as when the call is over, gives up.

        Raises:
            StatusError: The configuration was refused, or a new model did not become available.
        """
        ...
