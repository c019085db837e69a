"""Runs of many rows in parts, for signatures whose rows are independent of each other.

A graph cannot be stopped while it multiplies matrices. Parts bound the time that a run goes on
after its caller has gone, and the memory for one score per row and candidate.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.errors import Code, StatusError, invalid

__all__ = ["BOUNDS", "MIN_ROWS", "RunTimes", "check_bounds", "row_inputs", "rows_of", "run_parts"]

_SECONDS: Final = 0.1  # of a part
_FIRST_ROWS: Final = 64
MIN_ROWS: Final = 16  # of a part
BOUNDS: Final = frozenset((contract.FILTER_MIN, contract.FILTER_MAX))
_MAX_BOUNDS: Final = 100
# A run in the calling thread costs 5 us, a run through the session's thread pool 80 us
# (half_plus_two, 2 cores), but only the latter can be stopped at a deadline. So runs stay in
# the calling thread if the number of rows bounds their time, up to this long.
_INLINE_SECONDS: Final = 0.05
# A row alone costs up to this many times what it costs among others.
_SINGLE: Final = 4

_SIGNATURES: Final = frozenset(
    (
        contract.SERVING_DEFAULT,
        contract.RETRIEVE,
        contract.RETRIEVE_BY_EMBEDDING,
        contract.RETRIEVE_BY_QUERY,
        contract.EMBED,
        contract.EMBED_BY_QUERY,
        contract.SIMILAR,
        contract.RATE,
    )
)
_SHARED_INPUTS: Final = frozenset(
    (
        contract.K,
        contract.EXCLUDE_HISTORY,
        contract.EXCLUDE_SEEN,
        contract.FILTER_ANY,
        contract.FILTER_ALL,
        *BOUNDS,
    )
)
_OUTPUTS: Final = frozenset(
    (
        contract.CANDIDATE_IDS,
        contract.SCORES,
        contract.KNOWN_USER,
        contract.KNOWN_CANDIDATE,
        contract.KNOWN_HISTORY,
        contract.KNOWN_FEATURES,
        contract.SERVABLE_VERSION,
        contract.RATING,
        contract.QUERY_EMBEDDING,
    )
)

Arrays = Mapping[str, npt.NDArray[Any]]


def row_inputs(name: str, definition: messages.SignatureDef) -> frozenset[str]:
    """Return the inputs of a signature with a row per answer; none if it is not one of ours.

    Own towers have inputs of any name, but every servable has the same outputs.
    """
    outputs = definition.outputs.keys()
    ours = contract.SERVABLE_VERSION in outputs or contract.CANDIDATE_IDS in outputs
    if name not in _SIGNATURES or not ours or not outputs <= _OUTPUTS:
        return frozenset()
    return frozenset(definition.inputs) - _SHARED_INPUTS


def rows_of(inputs: Arrays, names: frozenset[str]) -> int | None:
    """Return the number of rows; None if there are none or the inputs differ in it."""
    rows: int | None = None
    for name, array in inputs.items():
        if name in names:
            if not array.ndim or (rows is not None and rows != len(array)):
                return None
            rows = len(array)
    return rows


def check_bounds(inputs: Arrays, names: Iterable[str] = BOUNDS) -> None:
    """Refuse needlessly many bounds: in earlier versions each is a pass over the whole corpus.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    for name in names:
        bounds = inputs.get(name)
        if bounds is not None and bounds.size > _MAX_BOUNDS:
            raise invalid(
                f"{name} has {bounds.size} values; this server takes {_MAX_BOUNDS}: one per "
                "attribute is enough"
            )


class RunTimes:
    """Times of a signature's runs, and what follows from them.

    Attributes:
        part_rows: Rows of a part that take about a tenth of a second.
    """

    def __init__(self) -> None:
        self.part_rows = _FIRST_ROWS
        self._per_row = 0.0  # moving averages, 0 before the first run: in large runs
        self._alone = 0.0  # in others

    def is_short(self, rows: int) -> bool:
        """Return True if the runs so far promise a short one; it can stay in its thread."""
        per_row = self._per_row if rows >= MIN_ROWS and self._per_row else self._alone
        return 0 < per_row * rows < _INLINE_SECONDS

    def add(self, rows: int, seconds: float) -> None:
        """Take a run into account."""
        spent = seconds / rows
        if rows >= MIN_ROWS:
            self._per_row = 0.7 * self._per_row + 0.3 * spent if self._per_row else spent
            self.part_rows = max(MIN_ROWS, int(_SECONDS / self._per_row))
            return
        self._alone = 0.9 * self._alone + 0.1 * spent if self._alone else spent
        if not self._per_row:
            rows = int(_SINGLE * _SECONDS / self._alone)
            self.part_rows = min(max(MIN_ROWS, rows), _FIRST_ROWS)


def run_parts(
    run: Callable[[Arrays, int, float | None], dict[str, npt.NDArray[Any]]],
    inputs: Arrays,
    names: frozenset[str],
    times: RunTimes,
    *,
    timeout: float | None,
    active: Callable[[], bool],
) -> dict[str, npt.NDArray[Any]]:
    """Return the outputs of all rows.

    Args:
        run: Runs inputs of some rows within a time limit.
        inputs: Arrays by input name.
        names: Inputs that have a row per answer.
        times: Times of the runs so far.
        timeout: Time limit in seconds.
        active: Returns False if the caller has gone.

    Raises:
        StatusError: A run failed, the time is over, or the caller has gone.
    """
    end = len(inputs[next(iter(names))])
    deadline = None if timeout is None else time.monotonic() + timeout
    parts: list[dict[str, npt.NDArray[Any]]] = []
    start = 0
    while start < end:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise StatusError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification")
        if not active():
            raise StatusError(Code.CANCELLED, f"the caller has gone after {start} of {end} rows")
        stop = min(start + times.part_rows, end)
        part = {
            name: array[start:stop] if name in names else array for name, array in inputs.items()
        }
        parts.append(run(part, stop - start, left))
        start = stop
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
