"""Users, histories and layout of the demo."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from shortlist.clients.cli.main import main
from shortlist.clients.types import Retrieval
from shortlist.export.cli.demo import (
    Answer,
    DemoReport,
    _as_json,
    _as_text,
    _available,
    _stays,
    claim_place,
    history,
)
from shortlist.export.data import DataConfig, Dataset
from shortlist.export.data.sources import tfds
from shortlist.export.gates.record import GateError
from shortlist.export.pipeline import ExportResult
from shortlist.serving.repository.version import GateResult
from shortlist.serving.servers.kinds import ServerKind

TITLES = ("Alien", "Brazil", "Casablanca", "Dune")


def dataset(*, ratings: list[float] | None, timestamps: list[int] | None) -> Dataset:
    return Dataset(
        name="four films",
        user_ids=("7", "8"),
        candidate_ids=("a", "b", "c", "d"),
        user_positions=np.array([0, 0, 0, 1], np.int32),
        candidate_positions=np.array([0, 1, 2, 3], np.int32),
        ratings=None if ratings is None else np.array(ratings, np.float32),
        timestamps=None if timestamps is None else np.array(timestamps, np.int64),
        titles=TITLES,
    )


def report(data: Dataset) -> DemoReport:
    rates = {"hit_rate@10": 0.25}
    metrics = {
        "headline": {"metric": "hit_rate@10", "protocol": "seen_excluded", "value": 0.25},
        "held_out": {"interactions": 9, "users": 2, "repeats": 1},
        "seen_kept": rates,
        "seen_excluded": rates,
    }
    retrieval = Retrieval(user_id="7", candidate_ids=("d", "c"), scores=(2.0, 1.0))
    return DemoReport(
        dataset=data,
        repository=Path("demo-output/four films/models"),
        export=ExportResult(
            version=3,
            servables={"retrieval_ivf": Path("models/retrieval_ivf/3")},
            metrics=metrics,
            seconds={},
            report=Path("models/retrieval_ivf/3/assets.extra/report.html"),
        ),
        answers=[
            Answer(servable="retrieval_ivf", user_id=user_id, history=liked, retrieval=retrieval)
            for user_id, liked in (("7", ["a", "b"]), (None, ["b"]))
        ],
        seconds={"train": 61.0},
        total_seconds=70.0,
        server=ServerKind.EMBEDDED,
    )


def test_history_is_the_users_own_best_rated_first_then_newest() -> None:
    data = dataset(ratings=[3, 5, 5, 5], timestamps=[1, 1, 2, 3])
    assert history(data, "7") == ["c", "b", "a"]
    assert history(data, "7", 1) == ["c"]
    assert history(data, "8") == ["d"]


@pytest.mark.parametrize(
    ("ratings", "timestamps", "first"),
    [(None, None, "a"), (None, [1, 3, 2, 9], "b"), ([1, 2, 4, 5], None, "c")],
)
def test_history_works_without_ratings_or_times(
    ratings: list[float] | None, timestamps: list[int] | None, first: str
) -> None:
    assert history(dataset(ratings=ratings, timestamps=timestamps), "7")[0] == first


def test_answers_stand_next_to_the_history_and_fit_the_terminal() -> None:
    text = _as_text(report(dataset(ratings=None, timestamps=None)), width=60)
    lines = text.splitlines()
    assert max(map(len, lines[:12])) <= 60
    assert lines[1] == "user 7"
    assert lines[2].split() == ["liked", "best", "retrieval_ivf"]
    assert lines[4].split() == ["Alien", "Dune"]
    assert lines[7] == "an unknown user"
    assert lines[8].split() == ["history", "in", "the", "request", "retrieval_ivf"]
    assert lines[10].split() == ["Brazil", "Dune"]
    assert "  shortlist query --history b -k 5 --transport grpc    (an unknown user)" in lines
    assert "  shortlist query 7 -k 5 --transport grpc    (in another terminal)" in lines
    assert "hit_rate@10 (seen excluded) 0.2500" in lines
    assert "total time: 70 s" in lines
    serve = "  shortlist serve --repository 'demo-output/four films/models' --ui"
    assert f"{serve}    (then look at http://127.0.0.1:8503/)" in lines


def test_every_servable_is_named_however_narrow_the_terminal() -> None:
    whole = report(dataset(ratings=None, timestamps=None))
    names = ["retrieval_brute_force", "retrieval_ivf", "retrieval_scann"]
    retrieval = whole.answers[0].retrieval
    answers = [
        Answer(servable=name, user_id="7", history=["a"], retrieval=retrieval) for name in names
    ]
    text = _as_text(replace(whole, answers=answers), width=60)
    assert all(name in text for name in names)


@pytest.mark.parametrize(
    ("terminal", "options", "stays"),
    [
        (True, {}, True),
        (False, {}, False),
        (False, {"stay": True}, True),
        (True, {"stay": False}, False),
        (True, {"json": True}, False),
    ],
)
def test_server_stays_for_a_person_at_a_terminal_alone(
    terminal: bool, options: dict[str, bool], stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", Mock(isatty=lambda: terminal))
    assert _stays(Namespace(**{"stay": None, "json": False, **options})) is stays


def test_steps_name_the_server_that_stays() -> None:
    text = _as_text(report(dataset(ratings=None, timestamps=None)), address="127.0.0.1:4711")
    assert "query 7 -k 5 --transport grpc --address 127.0.0.1:4711 " in text


def test_json_holds_version_answers_and_seconds() -> None:
    values = _as_json(report(dataset(ratings=None, timestamps=None)))
    assert values["version"] == 3
    assert values["answers"][0]["candidate_ids"] == ["d", "c"]
    assert [answer["user_id"] for answer in values["answers"]] == ["7", None]
    assert values["answers"][1]["history"] == ["b"]
    assert values["seconds"] == {"train": 61.0}


def test_each_data_set_has_a_place_of_its_own(tmp_path: Path) -> None:
    release = tmp_path / "ml-latest-small"
    release.mkdir()
    file = tmp_path / "my clicks.csv"
    file.touch()
    other = tmp_path / "elsewhere" / "my clicks.csv"
    other.parent.mkdir()
    other.touch()
    root = tmp_path / "demo-output"
    sources = [
        DataConfig(source="sample"),
        DataConfig(source="sample", sample_users=50),
        DataConfig(source="movielens/100k"),
        DataConfig(source=str(release)),
        DataConfig(source=f"{release}/../ml-latest-small", strip_year=True),
        DataConfig(source=str(file)),
        DataConfig(source=str(other)),
    ]
    expected = [
        *("sample", "sample-2", "movielens-100k", "ml-latest-small", "ml-latest-small-2"),
        *("my-clicks.csv", "my-clicks.csv-2"),
    ]
    for _ in range(2):  # the second demo on the same data publishes next to the first
        assert [claim_place(root, source).name for source in sources] == expected


def test_place_does_not_depend_on_how_a_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    places = {claim_place(Path("out"), DataConfig(source=s)) for s in ("data", "./data", "data/")}
    assert places == {Path("out/data")}


def test_folder_of_an_earlier_release_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "models" / "retrieval_ivf" / "1").mkdir(parents=True)
    data = tmp_path / "models.d" / "models"
    data.mkdir(parents=True)
    assert claim_place(tmp_path, DataConfig(source=str(data))) == tmp_path / "models-2"


@pytest.mark.parametrize(
    ("name", "problem", "source", "line"),
    [
        ("movielens/100k", None, "movielens/100k", "movielens/100k, the default"),
        ("movielens/1m", None, "movielens/1m", "movielens/1m, given by --data"),
        ("own.csv", None, "own.csv", "own.csv, given by --data"),
        (
            "movielens/100k",
            "no connection",
            "sample",
            (
                "sample (synthetic), because movielens/100k is not reachable (no connection); "
                "--data FOLDER reads an unzipped MovieLens release"
            ),
        ),
    ],
)
def test_one_line_says_which_data_is_used_and_why(
    name: str, problem: str | None, source: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tfds, "availability", lambda *args: problem)
    chosen, choice = _available(DataConfig(source=name))
    assert (chosen.source, choice) == (source, line)


def test_failed_gate_names_the_folder_to_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make demo` has no `--allow`."""
    failed = GateResult(gate="corpus", verdict="failed", measured="-50.0%", required="-20%")

    def run_export(*args: object, **kwargs: object) -> None:
        raise GateError("unused", {"retrieval_ivf": [failed]})

    monkeypatch.setattr("shortlist.export.pipeline.run_export", run_export)
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--data", "sample"]) == 1
    *_, gate, error = capsys.readouterr().err.splitlines()
    assert gate == "retrieval_ivf: corpus     FAILED   -50.0% (required: -20%)"
    assert error == (
        "shortlist: error: a gate failed, so nothing was published: see its line above, or delete "
        "demo-output/sample/models to start without earlier versions"
    )
    assert [path.name for path in Path("demo-output/sample").iterdir()] == ["data.json"]
