"""`shortlist bench index`, small."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from shortlist.clients.cli.main import main
from shortlist.export._tf import tf
from shortlist.export.bench.index_child import compare, search_signature
from shortlist.export.bench.index_rows import Row, as_table, with_ratios
from shortlist.export.bench.synthetic import make_vectors
from shortlist.export.config import BruteForceConfig, IvfConfig, ScannConfig
from shortlist.export.index.base import Effort
from shortlist.export.index.build import build_index
from shortlist.export.index.tuning import exact_positions
from shortlist.export.servable.saved_model import save


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_target_has_a_row_and_a_signature(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "curves.svg"
    arguments = ["bench", "index", "--size", "2000", "--queries", "64", "--dimension", "16"]
    arguments += ["--recall", "0.8", "--recall", "0.9", "--index", "ivf"]
    arguments += ["--row-type", "bfloat16", "--picture", str(picture), "--json"]
    assert main([*arguments, "--repository", str(tmp_path / "models")]) == 0
    captured = capsys.readouterr()
    rows = json.loads(captured.out)
    assert [(row["index"], row["target"]) for row in rows] == [("ivf", 0.8), ("ivf", 0.9)]
    for row in rows:
        assert (
            row["recall"] >= row["target"] - 0.01
        )  # sums of the saved index may round differently
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["size_bytes"] > 2000 * 16 * 4
        parameters = row["parameters"]
        assert parameters["row_type"] == "bfloat16"
        leaves, reordered = (
            parameters[name] for name in ("num_leaves_to_search", "num_reordering_candidates")
        )
        assert row["effort"] == f"{leaves}/{reordered}"
    assert rows[0]["effort"] != rows[1]["effort"]
    loaded = tf.saved_model.load(str(tmp_path / "models" / "bench_ivf" / "1"))
    assert {"serving_default", "at_recall_0.8", "at_recall_0.9"} <= set(loaded.signatures)
    assert "timed in turns" in captured.err
    assert picture.read_text(encoding="utf-8").startswith("<svg")


@pytest.mark.slow
def test_saved_indexes_are_compared_in_one_process(tmp_path: Path) -> None:
    candidates = make_vectors("towers", 1000, 16, seed=1)
    queries = make_vectors("towers", 70, 16, seed=2)
    ids = [str(i) for i in range(1000)]
    servables = {}
    for name, config in (
        ("brute_force", BruteForceConfig()),
        ("scann", ScannConfig(num_leaves=20)),
        ("ivf", IvfConfig(num_leaves=40)),
    ):
        index = build_index(name, candidates, ids, config)
        signatures = {}
        for leaves in (2, 20):
            index.set_effort(Effort(leaves, None))
            signatures[f"of {leaves}"] = search_signature(index, 10)
        path = tmp_path / name
        save(index, path, signatures)
        servables[name] = (str(path), [*signatures])
    measured = compare(servables, queries, exact_positions(queries, candidates, 10))
    recalls = {
        name: [times["recall"] for times in of_index.values()]
        for name, of_index in measured.items()
    }
    assert recalls["brute_force"] == [1.0, 1.0]
    assert recalls["scann"][0] < recalls["scann"][1] == 1.0
    assert recalls["ivf"][0] < recalls["ivf"][1] < 1.0
    for of_index in measured.values():
        assert list(of_index) == ["of 2", "of 20"]
        for times in of_index.values():
            assert 0 < times["p50_ms"] <= times["p99_ms"]
            assert min(times["cpu_ms"], times["batch_ms"], times["batch_cpu_ms"]) > 0


def test_process_that_was_killed_is_one_line_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -9 $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert main(["bench", "index", "--size", "100"]) == 1
    error = capsys.readouterr().err
    assert "brute_force, 100 candidates" in error
    assert "fewer indexes at once with --index" in error
    assert len(error.splitlines()) == 1


def row(index: str, target: float, *, p50: float, batch: float) -> Row:
    return Row(
        size=1000,
        index=index,
        target=target,
        recall=1.0,
        p50_ms=p50,
        p99_ms=2 * p50,
        cpu_ms=p50,
        batch_ms=batch,
    )


def test_ratios_are_to_the_same_target_of_the_same_run() -> None:
    rows = with_ratios(
        [
            row("brute_force", 0.9, p50=20.0, batch=4.0),
            row("scann", 0.9, p50=0.5, batch=0.1),
            row("ivf", 0.9, p50=1.0, batch=0.3),
            row("ivf", 0.95, p50=2.0, batch=0.5),
        ]
    )
    assert [row.of_scann for row in rows] == [40.0, 1.0, 2.0, None]
    assert [row.batch_of_scann for row in rows] == pytest.approx([40.0, 1.0, 3.0, None])
    assert [row.brute_force_times for row in rows] == [1.0, 40.0, 20.0, None]
    head = as_table(rows).splitlines()[0]
    assert head.count("× scann") == 2
    assert "build s" not in head


def test_table_has_no_ratio_to_what_was_not_measured() -> None:
    head = as_table(with_ratios([row("ivf", 0.9, p50=1.0, batch=0.3)])).splitlines()[0]
    assert "scann" not in head
    assert "speed-up" not in head


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "0"], "--size must be at least 1, got 0"),
        (["--queries", "5"], "--queries must be at least 64, got 5"),
        (["--recall", "1.5"], "--recall must lie between 0 and 1, got 1.5"),
        (["--repository", "x"], "give --size once"),
    ],
)
def test_option_out_of_range_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "index", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_vectors_repeat_by_seed_and_have_their_distribution() -> None:
    towers = make_vectors("towers", 2000, 32, seed=1)
    np.testing.assert_array_equal(towers, make_vectors("towers", 2000, 32, seed=1))
    assert not np.array_equal(towers, make_vectors("towers", 2000, 32, seed=2))
    np.testing.assert_allclose(np.linalg.norm(towers, axis=1), 1, rtol=1e-5)
    spread = towers.std(axis=0)
    assert spread[0] > 3 * spread[-1]


def test_mixture_lies_in_clusters_on_the_sphere_without_leading_directions() -> None:
    mixture = make_vectors("mixture", 20_000, 32, seed=1)
    np.testing.assert_allclose(np.linalg.norm(mixture, axis=1), 1, rtol=1e-5)
    energies = np.linalg.eigvalsh(mixture.T @ mixture)
    assert energies[-1] < 1.5 * energies[0]
    similar = np.sort(mixture[:200] @ mixture.T, axis=1)
    # Some twenty rows of a row's own cluster are near it, all others far.
    assert np.mean(similar[:, -10]) > 0.5
    assert np.mean(similar[:, -1000]) < 0.4
    queries = make_vectors("mixture", 200, 32, seed=2)
    assert np.mean(np.sort(queries @ mixture.T, axis=1)[:, -10]) > 0.5
