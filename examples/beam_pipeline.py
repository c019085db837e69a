"""A Beam pipeline of one's own with recommendations as one of its steps.

pip install 'shortlist[embedded,tensorflow,beam]'
python examples/beam_pipeline.py models/retrieval_ivf users.txt lists.jsonl [BEAM'S OPTIONS]

`shortlist recommend --runner` is such a pipeline, ready-made; this is for those that do more.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.shared import Shared

from shortlist import LocalClient

__all__ = ["Recommend", "main"]


class Recommend(beam.DoFn):
    """Adds candidates to batches of users; each worker process loads the model once."""

    def __init__(self, servable: str, k: int) -> None:
        self._servable, self._k = Path(servable), k
        self._shared = Shared()

    def setup(self) -> None:
        """Open the client, or take that of another thread."""
        repository, model = self._servable.parent, self._servable.name
        self._client = self._shared.acquire(lambda: LocalClient(repository, model=model))

    def process(self, users: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield a row per user."""
        answers = self._client.retrieve(users, k=self._k, exclude_seen=True, timeout=60)
        for user, answer in zip(users, answers, strict=True):
            yield {"user": user, "known": answer.known_user, "candidates": answer.candidate_ids}


def main(servable: str, users: str, output: str, *options: str) -> None:
    """Write the candidates of the users in a text file, ten each, as JSON lines."""
    with beam.Pipeline(options=PipelineOptions([*options], save_main_session=True)) as pipeline:
        (
            pipeline
            | "Read users" >> beam.io.ReadFromText(users)
            | "In batches" >> beam.BatchElements(64, 1024)
            | "Recommend" >> beam.ParDo(Recommend(servable, 10))
            | "Only known users" >> beam.Filter(lambda row: row["known"])
            | "To JSON" >> beam.Map(json.dumps)
            | "Write" >> beam.io.WriteToText(output, shard_name_template="")
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
