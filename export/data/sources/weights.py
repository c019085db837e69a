"""Weights of interactions: by the kind of event, and by a column such as a quantity."""

import difflib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from shortlist.clients.contract import MAX_HISTORY_WEIGHT as MAX_WEIGHT
from shortlist.clients.contract import MIN_HISTORY_WEIGHT as MIN_WEIGHT
from shortlist.export.data.config import DataConfig, DataError
from shortlist.export.data.reading.rows import Rows
from shortlist.export.data.reading.values import ids_of_column, required_numbers

__all__ = ["weights_of"]

_SHOWN = 8  # kinds of events in a message
_COMPARED = 2000  # kinds of events, to find near spellings for a message


def weights_of(
    rows: Rows, config: DataConfig
) -> tuple[npt.NDArray[np.float32] | None, Mapping[str, npt.NDArray[np.bool_]]]:
    """Return the weights of rows; add kinds of events without a weight to the faults.

    Args:
        rows: Rows with the columns.
        config: Columns, and weights of the kinds of events.

    Returns:
        Weights float32 `[num_rows]`, or None if no column has any; and rows to leave out, bool
        `[num_rows]`, by reason.

    Raises:
        DataError: The kinds of events have no weights at all.
    """
    if config.event_column is None and config.weight_column is None:
        return None, {}
    weights, left_out = np.ones(len(rows)), dict[str, npt.NDArray[np.bool_]]()
    if config.event_column is not None:
        weights = _weights_of_events(rows, config.event_column, config.weight_of_event())
        left_out["event of weight 0"] = weights == 0
    if config.weight_column is not None:
        numbers = required_numbers(rows, config.weight_column)
        left_out[f"{config.weight_column!r} is 0 or less"] = numbers <= 0
        weights = weights * numbers
    for what, without in left_out.items():
        if without.any():
            rows.note(f"{int(without.sum()):,} of {len(rows):,} rows are left out: {what}")
    bounded = np.clip(weights, MIN_WEIGHT, MAX_WEIGHT)
    changed = int(np.count_nonzero((bounded != weights) & (weights > 0)))
    if changed:
        rows.note(
            f"{changed:,} weights are outside of {MIN_WEIGHT:g} to {MAX_WEIGHT:g}, and count as "
            "the nearest of both"
        )
    return bounded.astype(np.float32), left_out


def _weights_of_events(
    rows: Rows, name: str, weight_of: Mapping[str, float]
) -> npt.NDArray[np.float64]:
    """Weight of each row's event; 1 for those without, which are faults."""
    events = ids_of_column(rows, name)
    counts = np.bincount(events.codes[events.codes >= 0], minlength=len(events.values))
    frequent = [events.values[at] for at in np.argsort(-counts, kind="stable")]
    if not weight_of:
        pairs = ",".join(f"{event}=1" for event in frequent[:_SHOWN])
        raise DataError(
            f"{rows.name}, column {name!r} has {len(frequent):,} kinds of events: "
            f"{_listed(frequent, counts)}; give their weights, such as --event-weights {pairs}"
        )
    unused = [event for event in weight_of if event not in events.values]
    if unused:
        near = difflib.get_close_matches(unused[0], frequent[:_COMPARED], n=1)
        rows.note(
            f"no row has the event {unused[0]!r} in {name!r}"
            + (f"; the nearest is {near[0]!r}" if near else "")
        )
    missing = np.fromiter((event not in weight_of for event in events.values), np.bool_)
    if missing.any():
        numbers = np.where(missing, counts, 0)
        without = [event for event in frequent if event not in weight_of]
        what = f"{len(without):,} kinds of events have no weights: {_listed(without, numbers)}"
        if len(without) == 1:
            what = f"the event {without[0]!r} has no weight"
        pairs = ",".join(f"{event}=WEIGHT" for event in without[:_SHOWN])
        rows.faults.add(
            f", column {name!r}: {what}",
            np.flatnonzero(np.append(missing, False)[events.codes]),
            f"add {pairs} to --event-weights, with 0 to leave such events out",
        )
    of_code = [weight_of.get(event, 1.0) for event in events.values]
    return np.asarray([*of_code, 1.0])[events.codes]


def _listed(events: list[str], counts: npt.NDArray[np.int64]) -> str:
    """Return the most frequent kinds with their numbers."""
    numbers = -np.sort(-counts)
    pairs = zip(events[:_SHOWN], numbers.tolist(), strict=False)
    shown = [f"{event} ({count:,})" for event, count in pairs]
    return ", ".join([*shown, *(["…"] if len(events) > _SHOWN else [])])
