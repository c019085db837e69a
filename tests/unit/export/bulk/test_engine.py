from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shortlist.clients.errors import InvalidRequest, ServerError, SignatureNotFound
from shortlist.clients.local import RetrievalOptions
from shortlist.export._tf import tf
from shortlist.export.bulk.engine import BulkServable
from shortlist.serving.errors import RepositoryError
from tests.support.plain_models import PLAIN_MODELS

NAN, PADDING = float("nan"), float("-inf")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of plain TFRS: one whose users and candidates are numbers, one with a feature."""
    folder = tmp_path_factory.mktemp("plain")
    tf.random.set_seed(1)
    for name in ("integers", "features"):
        PLAIN_MODELS[name](folder / name / "1")
    return folder


@pytest.fixture(scope="module")
def integers(folder: Path) -> Iterator[BulkServable]:
    with BulkServable(folder / "integers/1", options=RetrievalOptions(k=3)) as servable:
        yield servable


def users(*names: str) -> pa.RecordBatch:
    return pa.record_batch({"user_id": names})


def test_numbers_are_ids_of_users_and_candidates(folder: Path, integers: BulkServable) -> None:
    assert set(integers.users().to_pylist()) == set(map(str, range(1, 41)))
    loaded = tf.saved_model.load(str(folder / "integers/1")).signatures["serving_default"]
    (name,) = loaded.structured_input_signature[1]

    answers = integers.answer(users("7", "3"))

    outputs = [
        value.numpy()[:, :3] for value in loaded(**{name: tf.constant([7, 3], tf.int64)}).values()
    ]
    ids, scores = sorted(outputs, key=lambda array: array.dtype.kind, reverse=True)
    assert answers.column("candidate_ids").to_pylist() == ids.astype(str).tolist()
    np.testing.assert_allclose(answers.column("scores").to_pylist(), scores, rtol=1e-6)
    assert answers.column("known_user").to_pylist() == [None, None]  # the model does not tell


def test_features_are_inputs_of_a_model(folder: Path) -> None:
    with BulkServable(folder / "features/1", features={"day": ["2"]}) as servable:
        answers = servable.answer(users("1"))

        assert len(answers.column("candidate_ids")[0]) == 5
        with pytest.raises(ValueError, match="needs the features day"):
            servable.asking(RetrievalOptions()).answer(users("1"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 1000}, "answers 5 candidates at most"),
        ({"exclude": ["1001"]}, "cannot exclude candidates"),
        ({"exclude_seen": True}, "cannot exclude seen candidates"),
    ],
)
def test_what_a_model_cannot_do_is_an_error(
    integers: BulkServable, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SignatureNotFound, match=message):
        integers.asking(RetrievalOptions(**options)).answer(users("7"))


def test_missing_version_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "m/1").mkdir(parents=True)

    with pytest.raises(RepositoryError, match=r"m/1 cannot be loaded: .*saved_model\.pb"):
        BulkServable(tmp_path / "m/1")


@pytest.mark.parametrize(
    ("rows", "lengths"),
    [
        ([[3.0, 2.0, 1.0], [3.0, 2.0, PADDING]], [3, 2]),
        ([[PADDING] * 3, [3.0, NAN, NAN]], [0, 1]),  # TFRS' layer for ScaNN pads with NaN
        ([[3.0, PADDING, 1.0], [3.0, 2.0, 1.0]], [3, 3]),  # not at the end
    ],
)
def test_padding_is_cut_off(
    integers: BulkServable,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[list[float]],
    lengths: list[int],
) -> None:
    answer_with(monkeypatch, integers, rows)

    answers = integers.answer(users("7", "3"))

    assert answers.column("candidate_ids").to_pylist() == [
        ["0", "1", "2"][:length] for length in lengths
    ]
    assert answers.column("scores").to_pylist() == [
        row[:length] for row, length in zip(rows, lengths, strict=True)
    ]


@pytest.mark.parametrize("row", [[NAN] * 3, [3.0, NAN, 1.0]])
def test_score_that_is_not_a_number_is_an_error(
    integers: BulkServable, monkeypatch: pytest.MonkeyPatch, row: list[float]
) -> None:
    answer_with(monkeypatch, integers, [[3.0, 2.0, 1.0], row])

    with pytest.raises(ServerError, match="NaN as a score for '3'"):
        integers.answer(users("7", "3"))


def answer_with(
    monkeypatch: pytest.MonkeyPatch, servable: BulkServable, scores: list[list[float]]
) -> None:
    ids = np.tile(np.arange(3), (len(scores), 1))

    def run(signature: str, inputs: Any, outputs: list[str]) -> dict[str, Any]:
        interface = servable._requests.interface
        return {interface.ids: ids, interface.scores: np.array(scores, np.float32)}

    monkeypatch.setattr(servable._servable, "run", run)


def test_long_histories_are_asked_in_parts(
    integers: BulkServable, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def answer(part: pa.RecordBatch) -> pa.RecordBatch:
        asked.append(part.num_rows)
        return part

    monkeypatch.setattr(integers, "_answer", answer)
    monkeypatch.setattr("shortlist.export.bulk.engine._CELLS", 6)
    queries = pa.record_batch({"user_id": list("abcde"), "history": [["x"], ["x"] * 3, [], [], []]})

    assert integers.answer(queries).equals(queries)
    assert asked == [2, 2, 1]


def test_error_of_the_runtime_names_version_and_signature(
    integers: BulkServable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shortlist.serving.embedded.api.errors import invalid

    def run(*arguments: Any) -> Any:
        raise invalid("bad input\n\t [[{{node x}}]]")

    monkeypatch.setattr(integers._servable, "run", run)
    with pytest.raises(
        InvalidRequest, match=r"integers/1, signature 'serving_default': bad input$"
    ):
        integers.answer(users("7"))
