"""Parameters of server-side batching, with the real server's checks."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.errors import invalid

__all__ = ["BatchingOptions"]


@dataclass(frozen=True, kw_only=True)
class BatchingOptions:
    """`BatchingParameters`, with the real server's defaults.

    Attributes:
        max_batch_size: Maximum number of rows of a request.
        batch_timeout: Seconds that a batch waits for more requests.
        max_enqueued_batches: Maximum number of waiting batches; more requests are refused.
        num_batch_threads: Batches that run at a time, over all models.
        allowed_batch_sizes: Numbers of rows that batches are padded to.
        pad_variable_length_inputs: Merge requests of different inner shapes.
        max_execution_batch_size: Maximum number of rows of a batch; less than
            `max_batch_size` if large requests are split.
    """

    max_batch_size: int = 1000
    batch_timeout: float = 0.0
    max_enqueued_batches: int = 10
    num_batch_threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    allowed_batch_sizes: Sequence[int] = ()
    pad_variable_length_inputs: bool = False
    max_execution_batch_size: int = 1000

    def __post_init__(self) -> None:
        """Check as the real server does.

        Raises:
            StatusError: The parameters contradict each other.
        """
        for name in ("num_batch_threads", "max_batch_size", "max_enqueued_batches"):
            if getattr(self, name) < 1:
                shown = "input_batch_size_limit" if name == "max_batch_size" else name
                raise invalid(f"{shown} must be positive; was {getattr(self, name)}")
        if self.batch_timeout < 0:
            raise invalid(
                f"batch_timeout_micros must be non-negative; was {round(self.batch_timeout * 1e6)}"
            )
        if self.allowed_batch_sizes and self.allowed_batch_sizes[-1] != self.max_batch_size:
            raise invalid(
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was "
                f"{self.allowed_batch_sizes[-1]}; expected {self.max_batch_size}"
            )
        if self.max_execution_batch_size > self.max_batch_size:
            raise invalid(
                "When enable_large_batch_splitting is true, input_batch_size_limit must be "
                "greater than or equal to max_execution_batch_size."
                f"1{self.max_batch_size}{self.max_execution_batch_size}"
            )

    @classmethod
    def from_message(cls, parameters: messages.BatchingParameters) -> "BatchingOptions":
        """Return the options in the message of `--batching_parameters_file`.

        Raises:
            StatusError: The parameters contradict each other.
        """
        values: dict[str, Any] = {
            "allowed_batch_sizes": tuple(parameters.allowed_batch_sizes),
            "pad_variable_length_inputs": parameters.pad_variable_length_inputs,
        }
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
            if parameters.HasField(name):
                values[name] = getattr(parameters, name).value
        if parameters.HasField("batch_timeout_micros"):
            values["batch_timeout"] = parameters.batch_timeout_micros.value / 1e6
        largest = values.get("max_batch_size", cls.max_batch_size)
        values["max_execution_batch_size"] = largest
        if parameters.enable_large_batch_splitting.value and parameters.HasField(
            "max_execution_batch_size"
        ):
            values["max_execution_batch_size"] = parameters.max_execution_batch_size.value
        return cls(**values)

    def padded(self, rows: int) -> int:
        """Return the number of rows that a batch of `rows` is padded to."""
        return next((size for size in self.allowed_batch_sizes if size >= rows), rows)
