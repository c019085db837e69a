"""The hook of the clients, over all transports."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.clients import RetryPolicy
from shortlist.clients.errors import ServingError
from shortlist.clients.hooks import CallEvent
from shortlist.clients.request_log import LogRecord, RequestLog, hash_user_id, read_log
from shortlist.clients.types import Retrieval
from tests.unit.clients.conftest import make_client
from tests.unit.clients.toys import ToyServer, toy_model

KEY = bytes(range(16))


class Logging:
    """A client whose calls are logged."""

    def __init__(self, transport: str, server: ToyServer, path: Path, **options: Any) -> None:
        self.path = path
        self.log = RequestLog(path, **options)
        self.client = make_client(
            transport,
            server.address(transport),
            hooks=[self.log],
            retry=RetryPolicy(max_attempts=1),
        )

    def records(self) -> list[LogRecord]:
        self.client.close()
        self.log.close()
        return list(read_log(f"{self.path}-*"))


@pytest.fixture
def logging(transport: str, server: ToyServer, tmp_path: Path) -> Logging:
    return Logging(transport, server, tmp_path / "logs" / "web")


def test_a_retrieval_is_logged_as_it_was_answered(logging: Logging, transport: str) -> None:
    answers: list[Retrieval] = logging.client.retrieve(["42", "unknown-user"], label="canary")
    (record,) = logging.records()
    assert (record.kind, record.model, record.label, record.version) == (
        *("predict", "retrieval_brute_force", "canary", 2),
    )
    assert (record.signature, record.transport) == (
        "serving_default",
        "REST" if transport == "rest" else "GRPC",
    )
    assert (record.origin, record.shadow, record.sampling_rate) == ("shortlist-client", False, 1.0)
    assert record.user_ids == ["42", "unknown-user"]
    logged = record.retrievals
    assert [row.user_id for row in logged] == ["42", "unknown-user"]
    for row, answer in zip(logged, answers, strict=True):  # the request answers more than asked
        assert list(row)[: len(answer)] == list(answer)
        assert (row.known_user, row.version, row.label) == (
            *(answer.known_user, answer.version, answer.label),
        )
    assert record.output_tensors["scores"].dtype.name == "DT_FLOAT"
    assert record.latency is not None
    assert 0 < record.latency < 10


def test_histories_options_and_batches_are_logged(logging: Logging) -> None:
    answers = logging.client.retrieve(
        ["a", "b"],
        history=[["c01", "c02"], ["c03"]],
        features=[{"device": "mobile"}, {}],
        k=3,
        exclude=["c09"],
        exclude_seen=True,
    )
    (record,) = logging.records()
    assert record.signature == "retrieve_by_query"
    assert record.inputs["history"] == [["c01", "c02"], ["c03", ""]]
    assert record.inputs["k"] == 3
    assert record.inputs["exclude"] == [["c09"], ["c09"]]
    assert record.inputs["exclude_seen"] is True
    assert [list(row) for row in record.retrievals] == [list(row) for row in answers]


def test_each_kind_of_call_is_logged(logging: Logging) -> None:
    client = logging.client
    client.similar(["c01"], k=2)
    client.embed(["42"])
    client.rate([("42", "c01")])
    values = np.array([1.0, 2.0], np.float32)
    client.predict({"x": values}, signature="half_plus_two")
    values[:] = 7  # the caller's own
    client.classify([{"x": 1.0, "user_id": "42"}])
    client.regress([{"x": 1.0}])
    client.metadata()
    client.status()
    similar, embed, rate, predict, classify, regress = logging.records()
    assert similar.inputs["candidate_id"] == ["c01"]
    assert similar.retrievals == []
    assert len(embed.outputs["query_embedding"][0]) > 0
    assert rate.user_ids == ["42"]
    assert rate.output_tensors["rating"].dtype.name == "DT_FLOAT"
    assert (predict.inputs, predict.outputs) == ({"x": [1.0, 2.0]}, {"y": [2.5, 3.0]})
    assert (classify.kind, regress.kind) == ("classify", "regress")
    log = classify.message.classify_log
    assert [row.label for row in log.response.result.classifications[0].classes] == ["low", "high"]
    assert log.request.input.example_list.examples[0].features.feature["x"].float_list.value == [1]
    assert regress.message.regress_log.response.result.regressions[0].value == 2.5


def test_user_ids_are_hashed_or_dropped(transport: str, server: ToyServer, tmp_path: Path) -> None:
    every: list[dict[str, Any]] = [{"ids": "hash", "key": KEY}, {"ids": "drop"}]
    for number, options in enumerate(every):
        logging = Logging(transport, server, tmp_path / str(number), **options)
        logging.client.retrieve(["42"], history=[["c01"]])
        logging.client.rate([("42", "c01")])
        logging.client.classify([{"x": 1.0, "user_id": "42"}])
        retrieve, rate, classify = logging.records()
        stands_for = hash_user_id("42", KEY) if "key" in options else ""
        assert retrieve.user_ids == rate.user_ids == [stands_for]
        assert retrieve.inputs["history"] == [["c01"]]
        (example,) = classify.message.classify_log.request.input.example_list.examples
        feature = example.features.feature["user_id"]
        assert feature.bytes_list.value == [stands_for.encode()]
        assert all(b"\x0242" not in record.data for record in (retrieve, rate, classify))


def test_user_ids_of_a_foreign_model_are_known(transport: str, tmp_path: Path) -> None:
    from shortlist.clients.testing import FakeSignature

    model = toy_model()
    outputs = {"output_1": ("DT_FLOAT", [-1, 2]), "output_2": ("DT_STRING", [-1, 2])}
    model.signatures = {
        "serving_default": FakeSignature(
            inputs={"input_1": ("DT_INT64", [-1])},
            outputs=outputs,
            run=lambda inputs, version: {
                "output_1": [[1.0, 0.5] for _ in inputs["input_1"]],
                "output_2": [["a", "b"] for _ in inputs["input_1"]],
            },
        )
    }
    with ToyServer() as server:
        server.models["retrieval_brute_force"] = model
        logging = Logging(transport, server, tmp_path / "x", ids="hash", key=KEY)
        logging.client.retrieve(["7"], k=2)
        (record,) = logging.records()
    assert record.inputs == {"input_1": [hash_user_id("7", KEY)]}
    assert [list(row) for row in record.retrievals] == [[("a", 1.0), ("b", 0.5)]]


def test_failed_calls_are_not_logged(logging: Logging) -> None:
    with pytest.raises(ServingError):
        logging.client.retrieve(["42"], model="nope")
    logging.client.retrieve(["42"])
    assert len(logging.records()) == 1


def test_a_share_is_logged(
    transport: str, server: ToyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logging = Logging(transport, server, tmp_path / "x", sample=0.25)
    draws = iter([0.2, 0.3])
    monkeypatch.setattr("shortlist.clients.request_log.hook.random.random", lambda: next(draws))
    logging.client.retrieve(["a"])
    logging.client.retrieve(["b"])
    monkeypatch.undo()
    (record,) = logging.records()
    assert (record.user_ids, record.sampling_rate) == (["a"], 0.25)


def test_other_hooks_are_not_given_answers(transport: str, server: ToyServer) -> None:
    given: list[tuple[CallEvent, Any, Any]] = []

    class Both:
        def __call__(self, event: CallEvent) -> None:
            given.append((event, None, None))

        def exchange(self, event: CallEvent, request: Any, reply: Any) -> None:
            given.append((event, request, reply))
            raise RuntimeError("the hook is broken")

    plain: list[CallEvent] = []
    hooks = [plain.append, Both()]
    with make_client(transport, server.address(transport), hooks=hooks) as client:
        assert len(client.retrieve(["42"])) == 1
    (event, *_), (same, request, reply) = given
    assert plain == [event]
    assert same is event
    assert request.operation == "retrieve"
    assert "candidate_ids" in reply.tensors


def test_a_log_that_cannot_be_written_fails_no_call(
    transport: str, server: ToyServer, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    logging = Logging(transport, server, tmp_path / "file" / "x")
    assert len(logging.client.retrieve(["42"])) == 1
    logging.client.close()
    logging.log.close()
    assert logging.log.counts.lost == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": 0}, "sample must be above 0 and at most 1, got 0"),
        ({"sample": 1.5}, "sample must be above 0 and at most 1, got 1.5"),
        ({"ids": "hash"}, "needs a key"),
        ({"user_inputs": "user_id"}, "user_inputs takes a list"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RequestLog(tmp_path / "x", **options)
