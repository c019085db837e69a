"""Towers of any origin: which signature is taken, which inputs remain, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from shortlist.clients.request_log.reading import LogFileError
from shortlist.export._tf import tf
from shortlist.export.config import OwnConfig
from shortlist.export.data.config import DataError
from shortlist.export.own.inputs import read_inputs
from shortlist.export.own.publish import _asked, publish_model
from shortlist.export.own.tower import SavedTower, load_tower
from shortlist.export.own.vectors import VectorTable
from tests.unit.serving.request_log.examples import answer, record, write_log

VECTORS = tf.TensorSpec([None, 3], tf.float32, name="x")
CANDIDATES = VectorTable(ids=["a", "b"], embeddings=np.ones([2, 4], np.float32), name="corpus")


def save(path: Path, **signatures: Any) -> Path:
    module = tf.Module()
    concrete = {
        name: tf.function(function, input_signature=specs).get_concrete_function()
        for name, (function, specs) in signatures.items()
    }
    tf.saved_model.save(module, str(path), signatures=concrete)
    return path


def double(x: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"vector": 2.0 * x, "norm": tf.norm(x, axis=1)}


def column(age: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"embedding": tf.cast(tf.concat([age, age], axis=1)[:, None, :], tf.float16)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel with two signatures that return vectors, and one that returns none."""
    return save(
        tmp_path_factory.mktemp("towers") / "tower",
        first=(double, [VECTORS]),
        second=(column, [tf.TensorSpec([None, 1], tf.float32, name="age")]),
        third=(lambda x: {"norm": tf.norm(x, axis=1)}, [VECTORS]),
        fixed=(double, [tf.TensorSpec([2, 3], tf.float32, name="x")]),
        reserved=(lambda k: {"v": k[:, None] * 1.0}, [tf.TensorSpec([None], tf.float32, name="k")]),
    )


def test_a_signature_is_chosen_by_name(saved: Path) -> None:
    tower = SavedTower(saved, signature="first")
    assert [spec.name for spec in tower.inputs] == ["x"]
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(tower.embed({"x": rows}), 2 * rows)
    assert tower.dimension == 3


def test_columns_of_keras_are_values_in_requests(saved: Path) -> None:
    """Keras takes `[batch, 1]`, and may return `[batch, 1, d]`, of any floating-point type."""
    tower = SavedTower(saved, signature="second")
    assert tower.inputs[0].shape.as_list() == [None]
    vectors = tower.embed({"age": np.array([1, 2], np.float32)})
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[1, 1], [2, 2]]


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        (None, "several signatures that return vectors.*choose one with --signature"),
        ("fourth", "no signature 'fourth'; there are: "),
        ("third", "no output that is one vector"),
        ("fixed", "None as the first dimension"),
        ("reserved", "input 'k' has the name of an option"),
    ],
)
def test_what_is_no_tower_is_explained(saved: Path, signature: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        SavedTower(saved, signature=signature)


def test_what_is_no_saved_model_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"model\.export"):
        SavedTower(tmp_path / "tower.keras")
    with pytest.raises(DataError, match="give the folder of a SavedModel"):
        SavedTower(tmp_path)
    tf.saved_model.save(tf.Module(), str(tmp_path / "bare"))
    with pytest.raises(DataError, match="has no signatures; call the tower once"):
        SavedTower(tmp_path / "bare")


def test_python_gives_towers(tmp_path: Path) -> None:
    keras = tf.keras.Sequential([tf.keras.layers.Dense(4, use_bias=False, input_shape=[3])])
    rows = np.eye(3, dtype=np.float32)
    with load_tower(keras) as tower:
        (spec,) = tower.inputs
        np.testing.assert_allclose(tower.embed({spec.name: rows}), keras(rows), rtol=1e-5)
    with load_tower(lambda x: x + 1.0, input_signature=[VECTORS]) as tower:
        np.testing.assert_array_equal(tower.embed({"x": rows}), rows + 1)
    with load_tower(lambda named: -named["x"], input_signature={"x": VECTORS}) as tower:
        np.testing.assert_array_equal(tower.embed({"x": rows}), -rows)
    with (
        pytest.raises(DataError, match="pass input_signature="),
        load_tower(lambda x: x),
    ):
        pass
    variable = tf.Variable(rows)
    with (
        pytest.raises(DataError, match=r"pass the tf\.Module or Keras model that holds them"),
        load_tower(lambda x: x @ variable, input_signature=[VECTORS]),
    ):
        pass


def publish(tower: Any, folder: Path, **options: Any) -> Callable[[], Any]:
    config = OwnConfig(indexes=("brute_force",))
    return lambda: publish_model(tower, CANDIDATES, folder, config=config, **options)


@pytest.mark.slow
def test_publication_fails_early(saved: Path, tmp_path: Path) -> None:
    """Before an index is built."""
    rows = {"x": np.ones([2, 3], np.float32)}
    cases = [
        (
            publish(saved, tmp_path, signature="first", queries=rows),
            "have 3 dimensions, the candidates of corpus 4",
        ),
        (publish(saved, tmp_path, signature="first"), r"takes x \(float32\).*--queries"),
        (
            publish(saved, tmp_path, signature="first", queries={"y": rows["x"]}),
            r"queries has y; .* takes x \(float32\)",
        ),
        (
            publish(saved, tmp_path, signature="first", queries={"x": rows["x"] * np.nan}),
            "not finite for row 1",
        ),
        (
            publish(VectorTable(ids=["u"], embeddings=np.ones([1, 2])), tmp_path),
            "have 2 dimensions, the candidates of corpus 4",
        ),
    ]
    for call, message in cases:
        with pytest.raises(DataError, match=message):
            call()
    assert not list(tmp_path.iterdir())


def test_inputs_are_read_in_the_types_of_the_tower(tmp_path: Path) -> None:
    file = tmp_path / "queries.parquet"
    columns = {"user": [7, 8], "age": [1.0, 2.0], "watched": [["a", "b"], ["c", ""]]}
    pyarrow.parquet.write_table(pa.table(columns), file)
    specs = [
        tf.TensorSpec([None], tf.string, name="user"),
        tf.TensorSpec([None], tf.int64, name="age"),
        tf.TensorSpec([None, None], tf.string, name="watched"),
    ]
    rows, _ = read_inputs(file, specs, tower="the tower")
    assert rows["user"].tolist() == ["7", "8"]
    assert rows["age"].dtype == np.int64
    assert rows["watched"].tolist() == [["a", "b"], ["c", ""]]
    more = [*specs, tf.TensorSpec([None], tf.float32, name="height")]
    with pytest.raises(DataError, match=r"no column 'height'.*the tower takes user \(string\), "):
        read_inputs(file, more, tower="the tower")
    wrong = [tf.TensorSpec([None, 3], tf.string, name="watched")]
    with pytest.raises(DataError, match=r"lists of 2 values; the tower takes \[None, 3\]"):
        read_inputs(file, wrong, tower="the tower")
    scalar = [tf.TensorSpec([None], tf.float32, name="watched")]
    with pytest.raises(DataError, match="holds lists; the tower takes one value per row"):
        read_inputs(file, scalar, tower="the tower")
    columns["age"] = [1.5, 2.0]
    pyarrow.parquet.write_table(pa.table(columns), file)
    with pytest.raises(DataError, match="must hold whole numbers, the tower takes int64"):
        read_inputs(file, specs, tower="the tower")


def test_rows_of_a_request_log_are_read_by_the_inputs_of_the_tower(tmp_path: Path) -> None:
    specs = [
        tf.TensorSpec([None], tf.string, name="user"),
        tf.TensorSpec([None], tf.int64, name="age"),
    ]
    source: Any = SimpleNamespace(inputs=specs, name="the tower")
    asked = {"user": ["7", "8"], "age": np.array([1, 2]), "k": np.int32(3)}
    other = {"who": ["9"]}
    log = write_log(tmp_path, [record(asked, answer([["a"], ["b"]])), record(other, answer())])
    rows = _asked(source, log, None, seed=0)
    assert {name: values.tolist() for name, values in rows.items()} == {
        "user": ["7", "8"],
        "age": [1, 2],
    }
    source.inputs = [*specs, tf.TensorSpec([None], tf.string, name="country")]
    with pytest.raises(LogFileError, match="no requests with the inputs user, age, country"):
        _asked(source, log, None, seed=0)
