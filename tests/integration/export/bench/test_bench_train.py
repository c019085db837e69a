"""`shortlist bench train`, small, and optimizers for large tables."""

import json

import numpy as np
import pytest

from shortlist.clients.cli.main import main
from shortlist.export._tf import tf
from shortlist.export.bench.synthetic import make_interactions
from shortlist.export.training.optimizers import make_optimizer

SMALL = ["--sample-users", "100", "--sample-candidates", "200", "--sample-interactions", "4000"]


@pytest.mark.slow
def test_rows_name_rates_and_how_many_times_the_tutorials_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bench", "train", *SMALL, "--epochs", "2", "--seconds", "1", "--json"]) == 0
    rows = {row["recipe"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert list(rows) == ["TFRS tutorial", "TFRS tutorial without metrics", "tutorial", "default"]
    assert rows["TFRS tutorial"]["times_tutorial"] == 1
    for row in rows.values():
        assert row["interactions_per_second"] == row["interactions"] / row["seconds"] > 0


@pytest.mark.slow
def test_synthetic_data_is_trained_on_for_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    synthetic = ["--interactions", "20000", "--corpus-size", "3000", "--batch-size", "8"]
    assert main(["bench", "train", *synthetic, "--seconds", "1"]) == 0
    output = capsys.readouterr().out
    assert "| default  " in output
    assert "| default, order " in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "1"], "--epochs must be at least 2, got 1"),
        (["--seconds", "0"], "--seconds must be at least 1, got 0"),
        (["--interactions", "5"], "--interactions and --corpus-size go together"),
        (["--interactions", "5", "--corpus-size", "0"], "--corpus-size must be at least 1, got 0"),
    ],
)
def test_option_out_of_range_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "train", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_synthetic_interactions_are_uneven_and_repeat_by_seed() -> None:
    arguments = {"num_users": 500, "num_candidates": 1000, "num_interactions": 30_000}
    data = make_interactions(**arguments, seed=1)
    again = make_interactions(**arguments, seed=1)
    np.testing.assert_array_equal(data.candidate_positions, again.candidate_positions)
    counts = np.bincount(data.candidate_positions, minlength=1000)
    assert counts[:10].sum() > 20 * counts[-10:].sum()
    assert data.user_positions.dtype == data.candidate_positions.dtype == np.int32
    assert data.num_interactions == 30_000


def test_lazy_adam_is_adam_for_rows_that_every_step_meets_and_rests_for_others() -> None:
    rows = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    lazy, dense = tf.Variable(rows), tf.Variable(rows)
    optimizers = [make_optimizer("adam", 0.1, lazy=True), make_optimizer("adam", 0.1)]
    for step in range(5):
        # Row 0 occurs twice in each batch, row 2 in the first one only.
        indices = tf.constant([0, 0, 1, 2] if step == 0 else [0, 0, 1])
        for table, optimizer in zip((lazy, dense), optimizers, strict=True):
            gradient = tf.IndexedSlices(
                tf.gather(table, indices) + float(step), indices, tf.constant([3, 4])
            )
            optimizer.apply_gradients([(gradient, table)])
        if step == 0:
            after_first = lazy.numpy()[2]
    np.testing.assert_allclose(lazy.numpy()[:2], dense.numpy()[:2], rtol=1e-6)
    np.testing.assert_array_equal(lazy.numpy()[2], after_first)
    assert not np.allclose(dense.numpy()[2], after_first)
