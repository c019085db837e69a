"""Replays of a log against real versions, and against servers."""

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shortlist.clients.cli.main import main
from shortlist.clients.testing import FakeServer
from tests.unit.serving.request_log.examples import START, answer, record, write_log

if TYPE_CHECKING:
    from shortlist.export.data.dataset import Dataset
    from shortlist.export.pipeline import ExportResult

IVF = "retrieval_ivf"


def queries(dataset: "Dataset", model: str = IVF) -> list[bytes]:
    """Requests as clients send them: by user id, with k and a filter, and with a history."""
    ids, known = dataset.candidate_ids, dataset.user_ids
    lists = answer([ids[:10]])
    records = [record({"user_id": [user]}, lists, model=model) for user in known[:40]]
    options: dict[str, Any] = {
        "k": np.int32(10),
        "exclude": [[ids[0]]],
        "exclude_seen": np.bool_(True),
        "filter_any": np.array([], object),
        "filter_all": np.array([], object),
        "filter_min": np.array([], object),
        "filter_max": np.array([], object),
    }
    records.append(
        record({"user_id": [known[1]], **options}, lists, model=model, signature="retrieve")
    )
    history = {
        "user_id": [""],
        "history": [[*ids[:3]]],
        "history_age": np.array([[30.0, 20.0, -1.0]], np.float32),
        "history_weight": np.zeros((1, 0), np.float32),
        "features": [[""]],
        "exclude_history": np.bool_(True),
        **options,
        "exclude": [[""]],
        "exclude_seen": np.bool_(False),
    }
    records.append(record(history, lists, model=model, signature="retrieve_by_query"))
    return records


def run(*arguments: str) -> int:
    return main(["replay", *arguments])


@pytest.mark.slow
def test_two_versions_are_compared_offline(
    small_dataset: "Dataset",
    small_export: "ExportResult",
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = str(small_export.servables[IVF].parents[1])
    log = str(write_log(tmp_path / "logs", queries(small_dataset)))
    outcomes = tmp_path / "outcomes.csv"
    with outcomes.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["user_id", "candidate_id", "timestamp"])
        for user in small_dataset.user_ids[:40]:
            rows.writerow([user, small_dataset.candidate_ids[0], int(START) + 60])
    where = [log, "--repository", root]
    against = ["--against", "1", "retrieval_brute_force/1", "--max-slow-more", "0.99"]
    page = tmp_path / "page.html"
    more = ["--outcomes", str(outcomes), "--output", str(page), "--json"]
    assert run(*where, *against, *more) == 0
    found = json.loads(capsys.readouterr().out)
    # All leaves are searched, so the index answers as brute force does.
    assert (found["queries"], found["overlap"], found["rank_correlation"]) == (42, 1.0, 1.0)
    assert [side["failed"] for side in found["sides"]] == [0, 0]
    assert [side["unknown_users"] for side in found["sides"]] == [0, 0]  # not the one without an id
    rates = found["outcomes"]["hit_rates"]
    assert rates[2] == 1.0  # the log's lists have that candidate
    assert rates[0] == rates[1]
    assert found["outcomes"]["interactions"] == 40
    assert found["outcomes"]["difference_interval"] == {"low": 0.0, "high": 0.0}
    assert "Outcomes" in page.read_text()

    assert run(*where, *against, "--min-overlap", "0.999", "--requests", "5") == 0
    printed = capsys.readouterr()
    assert "a sample of 5 of 42 recorded queries" in printed.out
    assert "5 of 42 recorded queries" in printed.err
    assert "retrieval_brute_force/1 is within all limits." in printed.out

    assert run(*where, "--against", "1", "7") == 1
    assert "no version '7' of 'retrieval_ivf'" in capsys.readouterr().err
    gone = ["none", *where[1:], "--model", IVF]  # before a log is read, which takes long
    assert run(*gone, "--against", "1", "canary") == 1
    assert "'canary'" in capsys.readouterr().err
    late = [*against, "--outcomes", str(outcomes), "--window", "30s"]
    assert run(*where, *late) == 1
    assert "no interaction in" in capsys.readouterr().err


def test_labels_of_a_server_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = "retrieval_brute_force"
    asked = {"user_id": ["1"]}
    sampled = record(asked, model=model, rate=0.5)
    log = str(write_log(tmp_path, [*[record(asked, model=model)] * 4, sampled]))
    with FakeServer() as server:
        fake = server.models[model]
        fake.labels.update({"stable": 1, "canary": 1})
        where = [log, "--address", server.grpc_address]
        calm = ["--slow-ratio", "1000"]  # whatever else the machine does
        assert run(*where, "--against", "stable", "canary", "-k", "5", *calm, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["queries"], found["overlap"]) == (5, 1.0)
        assert found["how"] == server.grpc_address
        sampling, above = found["notes"]
        assert sampling.endswith("sampling rate 0.5 to 1, and each query counts once")
        assert "no list in the log has more than 2 candidates" in above
        names = [side["name"] for side in found["sides"]]
        assert names == [f"{model}/stable (1)", f"{model}/canary (1)"]
        server.fail("INTERNAL", "broken", times=100)
        assert run(*where, "--against", "stable", "gone") == 1
        assert "broken" in capsys.readouterr().err
    assert run(log, "--address", "127.0.0.1:1", "--against", "stable", "canary") == 1
    assert "no answer from 127.0.0.1:1" in capsys.readouterr().err


def test_logs_without_queries_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for version in ("a/1", "a/2", "b/1", "b/2"):
        (tmp_path / "models" / version).mkdir(parents=True)
        (tmp_path / "models" / version / "saved_model.pb").touch()
    empty = str(write_log(tmp_path / "empty", []))
    assert run(empty, "--against", "1", "2") == 1
    assert "holds no records yet" in capsys.readouterr().err
    logs = str(write_log(tmp_path / "logs", [record({"user_id": ["1"]}, model="a")]))
    assert run(logs, "--model", "b", "--against", "1", "2") == 1
    assert "no records of model 'b'; its records by model: a (1)" in capsys.readouterr().err
    write_log(tmp_path / "logs", [record({"user_id": ["1"]}, model="b")], "other")
    assert run(logs, "--against", "1", "2", "--requests", "1") == 1  # of one model by chance
    assert "the log holds a, b; choose one by --model" in capsys.readouterr().err
    assert run(logs, "--against", "1", "2", "--user-id-key", "key") == 1
    assert "--user-id-key needs --outcomes" in capsys.readouterr().err
