"""`shortlist demo`: from interactions to answers on one machine."""

import argparse
import dataclasses
import itertools
import json
import re
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shortlist.clients import GrpcClient, RestClient
from shortlist.clients.cli.output import progress, tell, write, write_json
from shortlist.clients.contract import DEFAULT_HOST, DEFAULT_UI_PORT
from shortlist.clients.errors import ShortlistError
from shortlist.clients.types import Retrieval
from shortlist.export.cli.console import ConsoleProgress, command_name, load_data
from shortlist.export.cli.options import data_config
from shortlist.export.cli.summary import gate_lines, headline_lines, metrics_table
from shortlist.export.config import ExportConfig
from shortlist.export.data import DataConfig, Dataset
from shortlist.export.data.config import MOVIELENS, SAMPLE
from shortlist.export.gates.record import GateError
from shortlist.export.gates.settings import GateSettings
from shortlist.export.preflight import check_config, check_data, log_left_out
from shortlist.serving.errors import ModelServerError
from shortlist.serving.installed import missing_package
from shortlist.serving.servers.available import check_available
from shortlist.serving.servers.kinds import ServerKind
from shortlist.serving.servers.options import free_port
from shortlist.serving.servers.runner import ModelServer
from shortlist.serving.servers.serve import ServeRequest, running

if TYPE_CHECKING:
    from shortlist.export.pipeline import ExportResult

__all__ = ["DemoReport", "demo", "run_demo"]

NUM_USERS = 2
K = 5
ROOT = Path("demo-output")
DATA_FILE = "data.json"
HISTORY_SHOWN = 5
SESSION = 3  # candidates in the request of an unknown user
MIN_COLUMN = 18
SCORE_TOLERANCE = 1e-5  # REST prints a float32 in decimal; gRPC sends its bytes


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Answer of one servable for one user, the same over REST and gRPC.

    Attributes:
        servable: Servable that answers.
        user_id: User id; None for an unknown user with a history in the request.
        history: Candidates that the user liked best, or those in the request.
        retrieval: Candidates that the servable recommends.
    """

    servable: str
    user_id: str | None
    history: Sequence[str]
    retrieval: Retrieval


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """Outcome of the demo.

    Attributes:
        dataset: Data of the training.
        repository: Model repository that was published into.
        export: Published servables.
        answers: Answers by user and servable, in that order.
        seconds: Seconds of each step, in order.
        total_seconds: Seconds of the whole demo, imports included.
        server: Kind of server.
    """

    dataset: Dataset
    repository: Path
    export: "ExportResult"
    answers: Sequence[Answer]
    seconds: dict[str, float]
    total_seconds: float
    server: ServerKind


def demo(args: argparse.Namespace) -> int:
    """Train, publish, serve and query; print the answers."""
    server = ServerKind(args.server)
    check_available(server)
    stays = _stays(args)
    source, choice = _available(data_config(args))
    progress(f"data: {choice}")

    def show(report: DemoReport, model_server: ModelServer) -> None:
        if args.json:
            write_json(_as_json(report))
        elif not stays:
            write(_as_text(report))
        else:
            write(_as_text(report, address=model_server.grpc_address))
            _stay(report, model_server)

    run_demo(
        source, args.repository, server=server, config=ExportConfig(), began=args.began, then=show
    )
    return 0


def _stays(args: argparse.Namespace) -> bool:
    """Return whether the server and a page run until Ctrl-C: for a person at a terminal.

    Raises:
        ShortlistError: They are asked for, and a package of the page is missing.
    """
    stays = sys.stdout.isatty() if args.stay is None else args.stay
    if not stays or args.json:
        return False
    missing = missing_package(("starlette", "uvicorn"), extra="ui")
    if missing is not None and args.stay:
        raise ShortlistError(missing)
    return missing is None


def _stay(report: DemoReport, model_server: ModelServer) -> None:
    """Serve the page until Ctrl-C."""
    from shortlist.serving.ui.command import page_for

    with page_for(
        report.repository,
        model_server.grpc_address,
        names=sorted(report.export.servables),
        port=free_port(DEFAULT_UI_PORT),
    ) as page:
        write(f"\npage: {page}    (Ctrl-C stops it and the server)")
        try:
            model_server.wait()
        except KeyboardInterrupt:
            return
    raise ModelServerError("the server of the demo ended by itself")


def run_demo(
    source: DataConfig,
    repository: Path | None,
    *,
    server: ServerKind,
    config: ExportConfig,
    began: float,
    then: Callable[["DemoReport", ModelServer], None],
) -> None:
    """Train, publish, serve and query.

    Args:
        source: Data to train on.
        repository: Model repository to publish into; None for one of this data's own.
        server: Kind of server to start.
        config: Configuration of the export.
        began: Start of the demo by the monotonic clock.
        then: Called with the outcome while the server runs.

    Raises:
        ShortlistError: A gate failed, or REST and gRPC disagreed.
        DataError: The data cannot be read.
        ModelServerError: The server did not start.
        RepositoryError: The repository cannot be written.
    """
    own = repository is None
    repository = repository or own_place(ROOT, source) / "models"
    check_config(config, repository, gates=GateSettings())
    log_left_out(config.indexes)
    started = time.monotonic()
    dataset = load_data(source)
    seconds = {"data": time.monotonic() - started}
    check_data(dataset, config, repository)
    if own:
        claim_place(ROOT, source)
    # Imports TensorFlow, which takes seconds.
    from shortlist.export.pipeline import run_export

    with ConsoleProgress() as console:
        try:
            result = run_export(dataset, config, repository, progress=console)
        except GateError as exc:
            tell(gate_lines(exc.results))
            raise ShortlistError(
                "a gate failed, so nothing was published: see its line above, or delete "
                f"{repository} to start without earlier versions"
            ) from exc
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
                users = _users_to_show(dataset)
                asked: list[tuple[str | None, list[str]]] = [
                    *((user_id, history(dataset, user_id)) for user_id in users),
                    (None, history(dataset, users[0], SESSION)[::-1]),
                ]
                answers = [
                    _ask(rest, grpc, servable.name, user_id, liked)
                    for user_id, liked in asked
                    for servable in selection.served
                ]
            seconds["query"] = time.monotonic() - started
            console.step_finished(
                "query", f"{2 * len(answers)} queries; REST and gRPC agree", seconds["query"]
            )
            report = DemoReport(
                dataset=dataset,
                repository=repository,
                export=result,
                answers=answers,
                seconds=seconds,
                total_seconds=time.monotonic() - began,
                server=server,
            )
            then(report, model_server)


def _available(source: DataConfig) -> tuple[DataConfig, str]:
    """Return the data to use, and which it is and why.

    Synthetic data replaces a MovieLens release that cannot be downloaded.
    """
    given = "the default" if source.source == DataConfig.source else "given by --data"
    if source.source not in MOVIELENS:
        return source, f"{source.source}, {given}"
    from shortlist.export.data.sources.tfds import availability

    problem = availability(source.source, source.data_dir)
    if problem is None:
        return source, f"{source.source}, {given}"
    return replace(source, source=SAMPLE), (
        f"{SAMPLE} (synthetic), because {source.source} is not reachable ({problem}); "
        "--data FOLDER reads an unzipped MovieLens release"
    )


def own_place(root: Path, source: DataConfig) -> Path:
    """Return the folder below `root` for demos on this data, which need not exist.

    It has the name of the data. If other data has used that folder, or an earlier release, a
    number is appended.
    """
    path = Path(source.source).expanduser().resolve()
    name = re.sub(r"[^\w.-]+", "-", path.name if path.exists() else source.source)
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(
        root / name
        for name in names
        if not (root / name).exists()
        or ((file := root / name / DATA_FILE).exists() and file.read_text() == _note(source))
    )


def claim_place(root: Path, source: DataConfig) -> Path:
    """Create the folder that `own_place` returns, and note the data in it."""
    place = own_place(root, source)
    place.mkdir(parents=True, exist_ok=True)
    (place / DATA_FILE).write_text(_note(source))
    return place


def _note(source: DataConfig) -> str:
    """Return what tells the data of a demo from other data."""
    path = Path(source.source).expanduser()
    where = str(path.resolve()) if path.exists() else source.source
    return json.dumps(dataclasses.asdict(replace(source, source=where, data_dir=None)), indent=2)


def _users_to_show(dataset: Dataset) -> list[str]:
    """Return the first users whose history is long enough to show a taste."""
    counts = np.bincount(dataset.user_positions, minlength=len(dataset.user_ids))
    enough = np.flatnonzero(counts >= min(20, counts.max()))
    return [dataset.user_ids[position] for position in enough[:NUM_USERS]]


def _ask(
    rest: RestClient, grpc: GrpcClient, servable: str, user_id: str | None, liked: Sequence[str]
) -> Answer:
    over_rest, over_grpc = (
        client.retrieve(history=[liked], k=K, model=servable)[0]
        if user_id is None
        else client.retrieve([user_id], k=K, exclude_seen=True, model=servable)[0]
        for client in (rest, grpc)
    )
    if over_rest.candidate_ids != over_grpc.candidate_ids or not np.allclose(
        over_rest.scores, over_grpc.scores, rtol=SCORE_TOLERANCE, atol=SCORE_TOLERANCE
    ):
        raise ShortlistError(
            f"{servable} answers {list(over_rest)} over REST and {list(over_grpc)} over gRPC "
            f"for {_name(user_id)}; please report this"
        )
    return Answer(servable=servable, user_id=user_id, history=liked, retrieval=over_grpc)


def history(dataset: Dataset, user_id: str, count: int = HISTORY_SHOWN) -> list[str]:
    """Return candidates that the user liked best, by rating and then the newest first."""
    mine = np.flatnonzero(dataset.user_positions == dataset.user_ids.index(user_id))
    keys = [-column[mine] for column in (dataset.timestamps, dataset.ratings) if column is not None]
    order = np.lexsort(keys) if keys else np.arange(len(mine))
    candidates = dataset.candidate_positions[mine[order]]
    return list(dict.fromkeys(dataset.candidate_ids[candidate] for candidate in candidates))[:count]


# --- output -------------------------------------------------------------------------


def _as_text(report: DemoReport, *, width: int | None = None, address: str | None = None) -> str:
    """Return answers next to histories, the quality, and what to do next.

    Args:
        report: Outcome.
        width: Columns of the terminal; None to look.
        address: gRPC address of the server that keeps running; None if it stops.
    """
    width = width or shutil.get_terminal_size((120, 24)).columns
    titles = dict(zip(report.dataset.candidate_ids, report.dataset.titles, strict=True))
    lines: list[str] = []
    for user_id, answers in groupby(report.answers, key=lambda answer: answer.user_id):
        of_user = list(answers)
        head = "liked best" if user_id is not None else "history in the request"
        columns = [(head, of_user[0].history)]
        # Servables that agree share a column, which leaves more room for the titles.
        for candidate_ids, agreeing in _by_answer(of_user).items():
            columns.append((", ".join(agreeing), candidate_ids))
        shown = [(head, [titles[id_] for id_ in ids]) for head, ids in columns]
        lines += ["", _name(user_id), *_side_by_side(shown, width)]
    lines += ["", *_quality(report), "", *_next_steps(report, address)]
    return "\n".join(lines)


def _name(user_id: str | None) -> str:
    return "an unknown user" if user_id is None else f"user {user_id}"


def _by_answer(answers: Iterable[Answer]) -> dict[tuple[str, ...], list[str]]:
    """Group the servables by their answer."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for answer in answers:
        groups.setdefault(answer.retrieval.candidate_ids, []).append(answer.servable)
    return groups


def _side_by_side(columns: Sequence[tuple[str, Sequence[str]]], width: int) -> list[str]:
    each = max(MIN_COLUMN, (width - 2) // len(columns) - 2)
    heads = [textwrap.wrap(head, each) for head, _ in columns]
    rows = [*_rows(heads), ["-" * each] * len(columns), *_rows([rows for _, rows in columns])]
    return ["  " + "  ".join(_fit(cell, each) for cell in row).rstrip() for row in rows]


def _rows(columns: Sequence[Sequence[str]]) -> list[list[str]]:
    """Turn columns of unequal length into rows, padded with empty cells."""
    return [list(row) for row in zip_longest(*columns, fillvalue="")]


def _fit(text: str, width: int) -> str:
    return f"{text if len(text) <= width else text[: width - 1] + '…':{width}}"


def _quality(report: DemoReport) -> list[str]:
    metrics = report.export.metrics
    names = [name for name in metrics["seen_kept"] if name.startswith("hit_rate@")]
    lines = [
        *headline_lines(metrics),
        metrics_table("on held-out interactions", metrics, names, ".3f"),
    ]
    if report.export.report is not None:
        lines.append(f"full report: {report.export.report}")
    lines.append(f"total time: {report.total_seconds:.0f} s")
    return lines


def _next_steps(report: DemoReport, address: str | None) -> list[str]:
    user_id = shlex.quote(report.answers[0].user_id or "")
    liked = shlex.quote(report.answers[-1].history[0])
    command = command_name()
    repository = shlex.quote(str(report.repository))
    server = "--transport grpc" if address is None else f"--transport grpc --address {address}"
    page = f"http://{DEFAULT_HOST}:{DEFAULT_UI_PORT}/"
    return [
        "next steps",
        f"  {command} serve --repository {repository} --ui    (then look at {page})",
        f"  {command} query {user_id} -k 5 {server}    (in another terminal)",
        f"  {command} query --history {liked} -k 5 {server}    (an unknown user)",
        f"  {command} export --data FILE.csv --repository models    (your own data)",
    ]


def _as_json(report: DemoReport) -> dict[str, Any]:
    return {
        "data": report.dataset.name,
        "server": report.server,
        "repository": str(report.repository),
        "version": report.export.version,
        "servables": {name: str(path) for name, path in report.export.servables.items()},
        "metrics": report.export.metrics,
        "answers": [
            {
                "servable": answer.servable,
                "user_id": answer.user_id,
                "history": list(answer.history),
                "candidate_ids": list(answer.retrieval.candidate_ids),
                "scores": list(answer.retrieval.scores),
            }
            for answer in report.answers
        ],
        "seconds": {step: round(seconds, 3) for step, seconds in report.seconds.items()},
        "total_seconds": round(report.total_seconds, 3),
    }
