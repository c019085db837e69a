"""Request logs as a server would write them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shortlist.clients.request_log.files import LogFile
from shortlist.clients.tensors import to_tensor_proto
from shortlist.clients.wire import messages

HOUR = 3600
START = 1_700_000_000 // HOUR * HOUR


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A list and the request for it; `history` is `None` for signatures without one."""

    time: float
    user: str = "u1"
    ids: Sequence[str] = ("a", "b")
    score: float = 1.0
    version: int = 1
    label: str = "stable"
    known: bool = True
    history: Sequence[str] | None = None
    unknown_events: int = 0
    model: str = "retrieval_ivf"
    origin: str = "shortlist-server"
    rate: float = 1.0

    def record(self) -> bytes:
        signature = "serving_default" if self.history is None else "retrieve_by_query"
        spec = messages.ModelSpec(name=self.model, signature_name=signature)
        spec.version.value = self.version
        log = messages.PredictionLog(
            log_metadata=messages.LogMetadata(
                model_spec=spec,
                version_label=self.label,
                time_us=round(self.time * 1e6),
                request_origin=self.origin,
            )
        )
        log.log_metadata.sampling_config.sampling_rate = self.rate
        inputs = log.predict_log.request.inputs
        inputs["user_id"].CopyFrom(to_tensor_proto([self.user]))
        outputs = log.predict_log.response.outputs
        scores = np.array([[self.score - 0.1 * rank for rank in range(len(self.ids))]], np.float32)
        outputs["candidate_ids"].CopyFrom(to_tensor_proto([[*self.ids, ""]]))
        outputs["scores"].CopyFrom(to_tensor_proto(np.append(scores, [[-np.inf]], 1)))
        outputs["known_user"].CopyFrom(to_tensor_proto([self.known]))
        if self.history is not None:
            inputs["history"].CopyFrom(to_tensor_proto([[*self.history, ""]]))
            known = len(self.history) - self.unknown_events
            outputs["known_history"].CopyFrom(to_tensor_proto(np.array([known], np.int32)))
        return log.SerializeToString()


def write_log(folder: Path, shown: Iterable[Shown], *, name: str = "requests") -> None:
    file = LogFile(folder / name)
    file.write([each.record() for each in shown])
    file.close()


def write_events(path: Path, events: Iterable[tuple[str, str, float]]) -> None:
    """Write users, candidates and times."""
    lines = "".join(f"{user},{candidate},{time:.0f}\n" for user, candidate, time in events)
    path.write_text(f"user_id,candidate_id,timestamp\n{lines}")
