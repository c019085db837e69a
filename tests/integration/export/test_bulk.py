"""Lists made in bulk are those that a server answers."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from shortlist.clients import Filter, GrpcClient
from shortlist.clients.cli.main import main
from shortlist.clients.local import RetrievalOptions
from shortlist.export.bulk.engine import BulkServable
from shortlist.export.data.dataset import Dataset
from shortlist.export.pipeline import ExportResult
from shortlist.serving.servers.kinds import ServerKind
from tests.integration.export.test_served import serving
from tests.support.command import started

pytestmark = pytest.mark.slow

NAMES = ("retrieval_brute_force", "retrieval_ivf", "retrieval_scann")


@pytest.fixture(scope="module")
def client(
    small_export: ExportResult, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GrpcClient]:
    work = tmp_path_factory.mktemp("bulk")
    flags = ("--enable_model_warmup=false",)  # half of the signatures are not asked
    with serving(ServerKind.EMBEDDED, small_export.servables, work, *flags) as server:
        yield server.grpc


@pytest.fixture(scope="module", params=NAMES)
def bulk(request: pytest.FixtureRequest, small_export: ExportResult) -> Iterator[BulkServable]:
    if request.param not in small_export.servables:
        pytest.skip(f"{request.param} was not exported: scann is not installed")
    with BulkServable(small_export.servables[request.param]) as servable:
        yield servable


def model_of(bulk: BulkServable) -> str:
    return bulk.path.parent.name


def assert_equal(answers: pa.RecordBatch, served: list[Any]) -> None:
    rows = answers.to_pylist()
    assert [tuple(row["candidate_ids"]) for row in rows] == [row.candidate_ids for row in served]
    for row, other in zip(rows, served, strict=True):
        np.testing.assert_allclose(row["scores"], other.scores, rtol=1e-6, atol=1e-6)
    for told in ("known_user", "known_history", "known_features", "known_candidate"):
        if told in answers.schema.names:
            assert [row[told] for row in rows] == [getattr(row, told) for row in served]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": 7},
        {"k": 60},  # more than serving_default answers
        {"k": 200},  # more than there are candidates
        {"k": 15, "exclude_seen": True},
        {"k": 5, "filter": Filter(any={"genres": ["Comedy", "Drama"]})},
    ],
    ids=str,
)
def test_users_get_what_the_server_answers(
    client: GrpcClient, bulk: BulkServable, small_dataset: Dataset, options: dict[str, Any]
) -> None:
    users = [*small_dataset.user_ids, "unknown"]

    answers = bulk.asking(RetrievalOptions(**options)).answer(pa.record_batch({"user_id": users}))

    assert_equal(answers, client.retrieve(users, model=model_of(bulk), **options))


@pytest.mark.parametrize("keep", [False, True], ids=["history excluded", "history kept"])
def test_histories_and_features_count_as_in_a_request(
    client: GrpcClient, bulk: BulkServable, small_dataset: Dataset, keep: bool
) -> None:
    users, ids = [*small_dataset.user_ids[:3], "unknown"], small_dataset.candidate_ids
    history = [ids[:3], (), ids[5:6], ids[9:14]]
    ages: list[list[float | None]] = [[60.0, 5.0, 1.0], [], [None], [9e5, 1e5, 1e4, 1e3, 10.0]]
    weights = [[1.0, 2.0, 1.0], [], [3.0], [1.0] * 5]
    options: dict[str, Any] = {"k": 9, "exclude": [ids[20]]}
    batch = pa.record_batch(
        {
            "user_id": users,
            "history": history,
            "ages": [[-1.0 if age is None else age for age in row] for row in ages],
            "weights": weights,
        }
    )
    shared = RetrievalOptions(**options, exclude_history=not keep)

    answers = bulk.asking(shared, features={"hour": ["20"]}).answer(batch)

    served = client.retrieve(
        users,
        history=history,
        history_ages=ages,
        history_weights=weights,
        features=[{"hour": "20"}] * 4,
        exclude_history=not keep,
        model=model_of(bulk),
        **options,
    )
    assert_equal(answers, served)


def test_similar_candidates_are_those_of_the_server(client: GrpcClient, bulk: BulkServable) -> None:
    candidates = bulk.candidates()

    answers = bulk.asking(RetrievalOptions(k=6)).answer(
        pa.record_batch({"candidate_id": candidates})
    )

    assert_equal(answers, client.similar(candidates.to_pylist(), k=6, model=model_of(bulk)))


def test_servable_knows_its_users_and_candidates(
    bulk: BulkServable, small_dataset: Dataset
) -> None:
    assert bulk.users().to_pylist() == sorted(small_dataset.user_ids)
    assert bulk.candidates().to_pylist() == sorted(small_dataset.candidate_ids)


def recommend(path: Path, output: Path, *arguments: str) -> int:
    return main(["recommend", f"--servable={path}", f"--output={output}", *arguments])


def test_command_writes_parts_and_says_what_is_unusual(
    small_export: ExportResult,
    small_dataset: Dataset,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = small_export.servables["retrieval_ivf"]
    users = tmp_path / "users.csv"
    users.write_text("user\n" + "\n".join([*small_dataset.user_ids[:9], "unknown"]))

    arguments = (f"--users={users}", "-k", "4", "--part-rows", "4", "--exclude-seen", "--json")
    assert recommend(path, tmp_path / "recs.parquet", *arguments) == 0

    shown = capfd.readouterr()
    report = json.loads(shown.out)
    assert (report["queries"], report["parts"], report["unknown"]) == (10, 3, 1)
    assert "absl" not in shown.err
    assert "load" in shown.err
    table = pyarrow.parquet.read_table(tmp_path / "recs.parquet")
    assert table.column("user_id").to_pylist() == [*small_dataset.user_ids[:9], "unknown"]
    assert "users.csv: reading user as users\n" in shown.err
    assert recommend(path, tmp_path / "recs.parquet", *arguments[:-1]) == 0
    assert "complete already, 10 users in 3 parts" in capfd.readouterr().out


def test_command_says_how_many_events_the_model_does_not_know(
    small_export: ExportResult,
    small_dataset: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    user, known = small_dataset.user_ids[0], small_dataset.candidate_ids[3]
    rows = [f"{user},{known},1700000000", f"{user},withdrawn,1700000100", "other,withdrawn,5"]
    (tmp_path / "events.csv").write_text("\n".join(["user,item,time", *rows]))
    arguments = ("--users=all", f"--history={tmp_path}/events.csv")

    path = small_export.servables["retrieval_brute_force"]
    assert recommend(path, tmp_path / "recs.parquet", *arguments) == 0

    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert notes[1:] == [
        "note: events.csv: 2 events of 1 of the 60 users",
        "note: events.csv: users that are not in --users, so not asked: 1",
        "note: 1 of 2 events in histories have a candidate unknown to the model",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--users=all", "--part-rows=0"], "--part-rows must be at least 1, got 0"),
        (["--users=all", "-k", "0"], "k must be a whole number of at least 1, got 0"),
        (["--users=all", "--now=5"], "give --history"),
        (["--similar=all", "--exclude=x"], "--exclude does not apply to --similar"),
        (["--users=gone.csv"], "gone.csv"),
        (["--users=all", f"--output={__file__}"], "--output must name a folder, got the file"),
        (["--users=all", "--", "--x=1"], "--x=1 is an option of Beam; give --runner, too"),
        (["--users=all", "--runner=DirectRunner"], "pip install 'shortlist[beam]'"),
        (["--users=all", "--signature=x"], "no signature is called 'x'"),
    ],
)
def test_wrong_use_is_one_line_and_leaves_no_folder(
    small_export: ExportResult,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    output = tmp_path / "recs.parquet"

    assert recommend(small_export.servables["retrieval_ivf"], output, *arguments) == 1

    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("shortlist: error: ")
    assert message in last
    assert not output.exists()


def test_killed_run_continues_where_it_was(
    small_export: ExportResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = small_export.servables["retrieval_brute_force"], tmp_path / "recs.parquet"
    users = [f"user {number}" for number in range(1000)]
    file = tmp_path / "users.csv"
    file.write_text("user_id\n" + "\n".join(users))
    arguments = [f"--servable={path}", f"--users={file}", f"--output={output}", "--part-rows=1"]
    log = tmp_path / "log"
    with started("recommend", *arguments, log=log) as process:
        deadline = time.monotonic() + 120
        while len([*output.glob("part-*")]) < 5 and process.poll() is None:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    finished = len([*output.glob("part-*")])
    assert 5 <= finished < 1000, log.read_text()
    assert not (output / "_SUCCESS").exists()

    assert main(["recommend", *arguments, "--json"]) == 0

    report = json.loads(capsys.readouterr().out)
    assert (report["finished_before"], report["answered"]) == (finished, 1000 - finished)
    with BulkServable(path) as servable:
        expected = servable.answer(pa.record_batch({"user_id": users}))
    table = pyarrow.parquet.read_table(output)
    assert table.drop_columns("scores").equals(
        pa.Table.from_batches([expected]).drop_columns("scores")
    )
