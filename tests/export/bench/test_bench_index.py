"""`shortlist bench index`, small."""

import json
from pathlib import Path

import numpy as np
import pytest

from clients.cli import main
from export.bench.vectors import make_vectors


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_index_reaches_its_recall(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "curves.svg"
    arguments = ["bench", "index", "--size", "2000", "--queries", "64", "--dimension", "16"]
    arguments += ["--recall", "0.9", "--picture", str(picture), "--json", "--index", "ivf"]
    assert main([*arguments, "--repository", str(tmp_path / "models")]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["index"] for row in rows] == ["ivf"]
    for row in rows:
        assert row["recall"] >= 0.9
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["size_bytes"] > 2000 * 16 * 4
        assert (tmp_path / "models" / f"bench_{row['index']}" / "1" / "saved_model.pb").is_file()
    assert picture.read_text(encoding="utf-8").startswith("<svg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "0"], "--size must be positive, got 0"),
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
