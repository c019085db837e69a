"""Logs as a server would write them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.clients.request_log.files import LogFile
from shortlist.clients.request_log.records import encode
from tests.unit.clients.request_log.examples import metadata, request, response

__all__ = ["START", "answer", "record", "write_log"]

START = 1_700_000_000.0


def answer(
    ids: Sequence[Sequence[str]] = (("a", "b"),), known: Sequence[bool] | None = None
) -> dict[str, Any]:
    """Outputs of a retrieval; a row is padded to the width of the longest."""
    width = max(map(len, ids))
    rows = [[*row, *[""] * (width - len(row))] for row in ids]
    scores = [[-float(rank) if name else -np.inf for rank, name in enumerate(row)] for row in rows]
    return {
        "candidate_ids": np.array(rows, object).reshape(len(ids), width),
        "scores": np.array(scores, np.float32).reshape(len(ids), width),
        "known_user": list(known or [True] * len(ids)),
    }


def record(
    inputs: dict[str, Any],
    outputs: dict[str, Any] | None = None,
    *,
    at: float = 0.0,
    signature: str = "serving_default",
    model: str = "retrieval",
    version: int = 3,
    rate: float = 1.0,
    **values: Any,
) -> bytes:
    """A record of a request, `at` seconds after the start of the log."""
    described = metadata(time_us=round((START + at) * 1e6), **values)
    described.model_spec.name = model
    described.model_spec.version.value = version
    described.model_spec.signature_name = signature
    described.sampling_config.sampling_rate = rate
    asked = request(**inputs)
    asked.model_spec.name, asked.model_spec.signature_name = model, signature
    answered = response(**(outputs or answer([["a", "b"]] * len(next(iter(inputs.values()))))))
    return encode(
        described.SerializeToString(), asked.SerializeToString(), answered.SerializeToString()
    )


def write_log(folder: Path, records: Iterable[bytes], prefix: str = "retrieval") -> Path:
    """Write one file."""
    file = LogFile(folder / prefix)
    file.write(list(records))
    file.close()
    return folder
