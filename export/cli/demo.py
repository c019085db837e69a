"""`shortlist demo`: the whole road on one machine, from interactions to answers."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import numpy as np

from shortlist.clients import GrpcClient, RestClient
from shortlist.clients.errors import ShortlistError
from shortlist.clients.types import Retrieval
from shortlist.export.cli.console import ConsoleProgress
from shortlist.export.config import ExportConfig
from shortlist.export.data import DataConfig, Dataset, load
from shortlist.export.data.config import MOVIELENS, SAMPLE
from shortlist.export.pipeline import ExportResult, run_export
from shortlist.serving.servers.kinds import ServerKind
from shortlist.serving.servers.serve import ServeRequest, running

__all__ = ["DemoReport", "run_demo"]

log = logging.getLogger(__name__)

NUM_USERS = 2
K = 5
HISTORY_SHOWN = 5
SCORE_TOLERANCE = 1e-5  # REST prints a float32 in decimal; gRPC sends its bytes


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one servable answered for one user, the same over REST and gRPC."""

    servable: str
    user_id: str
    retrieval: Retrieval


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """What the demo did and saw.

    Attributes:
        dataset: The data that it used.
        export: What it published.
        answers: Per user and servable, in that order.
        seconds: What each step took, in order.
        total_seconds: All of it, the imports included.
        server: Kind of server that answered.
    """

    dataset: Dataset
    export: ExportResult
    answers: Sequence[Answer]
    seconds: dict[str, float]
    total_seconds: float
    server: ServerKind


def run_demo(
    source: DataConfig,
    repository: Path,
    *,
    server: ServerKind,
    config: ExportConfig,
    progress: TextIO,
    began: float,
) -> DemoReport:
    """Trains, publishes, serves and queries; the server is stopped in the end.

    Args:
        source: What data to use; a MovieLens release that cannot be had is replaced by
            `sample`, which is said in one line.
        repository: Model repository to publish into.
        server: Kind of server to start.
        config: Of the export.
        progress: Where the course is shown.
        began: When the demo began, by the monotonic clock.

    Raises:
        ShortlistError: REST and gRPC disagreed.
        DataError: The data cannot be read.
        ModelServerError: The server did not come up.
        RepositoryError: The repository cannot be written.
    """
    seconds: dict[str, float] = {}
    with ConsoleProgress(progress) as console:
        started = time.monotonic()
        dataset = load(_available(source, progress))
        seconds["data"] = time.monotonic() - started
        console.step_finished("data", _describe(dataset), seconds["data"])
        result = run_export(dataset, config, repository, progress=console)
        seconds |= result.seconds
        started = time.monotonic()
        request = ServeRequest(
            repository=repository,
            kind=server,
            names=tuple(sorted(result.servables)),
            log_file=repository / ".serving" / "server.log",
        )
        with running(request) as (model_server, selection):
            seconds["serve"] = time.monotonic() - started
            console.step_finished(
                "serve",
                f"{server} server, gRPC {model_server.grpc_address}, "
                f"REST {model_server.rest_address}",
                seconds["serve"],
            )
            started = time.monotonic()
            with (
                RestClient(model_server.rest_address) as rest,
                GrpcClient(model_server.grpc_address) as grpc,
            ):
                answers = [
                    _ask(rest, grpc, servable.name, user_id)
                    for user_id in _users_to_show(dataset)
                    for servable in selection.served
                ]
            seconds["query"] = time.monotonic() - started
        console.step_finished(
            "query", f"{2 * len(answers)} queries; REST and gRPC agree", seconds["query"]
        )
    return DemoReport(
        dataset=dataset,
        export=result,
        answers=answers,
        seconds=seconds,
        total_seconds=time.monotonic() - began,
        server=server,
    )


def _available(source: DataConfig, progress: TextIO) -> DataConfig:
    """The source itself, or `sample` where a MovieLens release cannot be downloaded."""
    if source.source not in MOVIELENS:
        return source
    from shortlist.export.data.tfds import availability

    problem = availability(source.source, source.data_dir)
    if problem is None:
        return source
    progress.write(f"{source.source} cannot be had here ({problem}); using made data: {SAMPLE}\n")
    return replace(source, source=SAMPLE)


def _describe(dataset: Dataset) -> str:
    return (
        f"{dataset.name}: {dataset.num_interactions:,} interactions of "
        f"{len(dataset.user_ids):,} users with {len(dataset.candidate_ids):,} candidates"
    )


def _users_to_show(dataset: Dataset) -> list[str]:
    """The first users with a history long enough to recognise a taste in."""
    counts = np.bincount(dataset.user_positions, minlength=len(dataset.user_ids))
    enough = np.flatnonzero(counts >= min(20, counts.max()))
    return [dataset.user_ids[position] for position in enough[:NUM_USERS]]


def _ask(rest: RestClient, grpc: GrpcClient, servable: str, user_id: str) -> Answer:
    over_rest, over_grpc = (
        client.retrieve([user_id], k=K, exclude_seen=True, model=servable)[0]
        for client in (rest, grpc)
    )
    if over_rest.candidate_ids != over_grpc.candidate_ids or not np.allclose(
        over_rest.scores, over_grpc.scores, rtol=SCORE_TOLERANCE, atol=SCORE_TOLERANCE
    ):
        raise ShortlistError(
            f"{servable} answers {list(over_rest)} over REST and {list(over_grpc)} over gRPC "
            f"for user {user_id!r}; please report this"
        )
    return Answer(servable=servable, user_id=user_id, retrieval=over_grpc)


def history(dataset: Dataset, user_id: str, count: int = HISTORY_SHOWN) -> list[str]:
    """Titles that the user liked best, by rating and then the newest first."""
    mine = np.flatnonzero(dataset.user_positions == dataset.user_ids.index(user_id))
    keys = [-column[mine] for column in (dataset.timestamps, dataset.ratings) if column is not None]
    order = np.lexsort(keys) if keys else np.arange(len(mine))
    candidates = dataset.candidate_positions[mine[order]]
    return list(dict.fromkeys(dataset.titles[candidate] for candidate in candidates))[:count]
