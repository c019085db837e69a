"""The clients on a real server, with each transport."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.clients import GrpcClient, Limits, Split
from shortlist.clients.errors import (
    InvalidRequest,
    LabelNotFound,
    MissingOp,
    ServableNotFound,
    SignatureNotFound,
    Unsupported,
)
from shortlist.clients.types import State
from shortlist.clients.wire import messages
from tests.integration.clients.conftest import Live, started
from tests.unit.clients.conftest import make_client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

USERS = ["1", "2", "3", "nobody at all", "七人"]


def same(actual: Any, expected: Any) -> None:
    assert actual.candidate_ids == expected.candidate_ids
    assert actual.scores == pytest.approx(expected.scores, rel=1e-5)


def test_answers_are_the_same_on_every_transport(real: Any, oracle: GrpcClient) -> None:
    for actual, expected in zip(
        real.retrieve(USERS, k=5), oracle.retrieve(USERS, k=5), strict=True
    ):
        same(actual, expected)
        assert len(actual) == 5
        assert list(actual.scores) == sorted(actual.scores, reverse=True)
        assert actual.known_user == expected.known_user


def test_predict_gives_what_retrieve_gives(real: Any) -> None:
    prediction = real.predict({"user_id": np.array(USERS, dtype=object)})
    assert prediction["scores"].dtype == np.float32
    for row, retrieval in enumerate(real.retrieve(USERS, k=5)):
        assert tuple(prediction["candidate_ids"][row, :5]) == retrieval.candidate_ids
        assert tuple(prediction["scores"][row, :5].tolist()) == pytest.approx(retrieval.scores)


def test_a_split_batch_is_the_whole_batch(live: Live, transport: str, oracle: GrpcClient) -> None:
    users = [str(number) for number in range(70)]
    address = live.address(transport)
    with make_client(
        transport, address, model=live.model, limits=Limits(batch_size=16), timeout=60
    ) as client:
        for actual, expected in zip(
            client.retrieve(users, k=3), oracle.retrieve(users, k=3), strict=True
        ):
            same(actual, expected)


def test_metadata_and_status_agree(real: Any) -> None:
    metadata = real.metadata()
    assert metadata.signatures["serving_default"].inputs["user_id"].dtype == "DT_STRING"
    status = real.status()
    assert metadata.version == status.available[0]
    assert status.versions[0].state is State.AVAILABLE
    assert real.wait_until_available(timeout=10).available == status.available


def test_errors_about_unknown_names_list_the_known_ones(real: Any, live: Live) -> None:
    with pytest.raises(ServableNotFound, match=f"no servable 'nope'.*it serves: .*{live.model}"):
        real.retrieve(["1"], model="nope")
    with pytest.raises(ServableNotFound, match=r"version 99.*its versions: \d+ AVAILABLE"):
        real.retrieve(["1"], version=99)
    with pytest.raises(LabelNotFound, match=r"'nightly'.*its versions: \d+ AVAILABLE"):
        real.retrieve(["1"], label="nightly")
    with pytest.raises(SignatureNotFound, match=r"'nope'.*it has: .*serving_default"):
        real.predict({"user_id": ["1"]}, signature="nope")


# --- servables and labels of the tests' own ---------------------------------------------


def test_a_servable_without_ratings_says_so(real: Any, own: Live) -> None:
    with pytest.raises(SignatureNotFound, match=r"'plain' .* cannot predict ratings"):
        real.rate([("1", "2")], model="plain")


def test_k_reaches_beyond_the_fixed_columns(real: Any, own: Live, oracle: GrpcClient) -> None:
    assert own.top_k is not None
    (retrieval,) = real.retrieve(["1"], k=own.top_k + 7)
    assert len(retrieval) == own.top_k + 7
    same(retrieval, oracle.retrieve(["1"], k=own.top_k + 7)[0])
    (whole,) = real.retrieve(["1"], k=10_000)
    assert len(whole) == len(set(whole.candidate_ids)) == own.corpus


def test_exclusions_hold(real: Any, own: Live) -> None:
    best, other = real.retrieve(["1", "2"], k=6)
    gone = list(best.candidate_ids[:2])
    filtered, untouched = real.retrieve(["1", "2"], k=4, exclude={"1": gone})
    assert filtered.candidate_ids == best.candidate_ids[2:]
    assert untouched.candidate_ids == other.candidate_ids[:4]
    (everything,) = real.retrieve(["1"], k=own.corpus)
    (unseen,) = real.retrieve(["1"], k=own.corpus, exclude_seen=True)
    assert 0 < len(unseen) < len(everything)


def test_unknown_users_and_similar_candidates(real: Any, own: Live) -> None:
    known, other = real.retrieve(["1", "nobody at all"], k=1)
    assert (known.known_user, other.known_user) == (True, False)
    near, unknown = real.similar([known.candidate_ids[0], "no such film"], k=3)
    assert near.known_candidate
    assert len(near) == 3
    assert known.candidate_ids[0] not in near.candidate_ids
    assert (unknown.known_candidate, len(unknown)) == (False, 0)
    (embedding,) = real.embed(["1"])
    assert len(embedding.values) > 8  # the dimensions of the taste, and those of other parts


def test_labels_and_splits_choose_versions(real: Any, own: Live) -> None:
    assert real.metadata(label="stable").version == 1
    assert real.metadata(label="canary").version == 2
    users = [str(number) for number in range(60)]
    retrievals = real.retrieve(users, k=1, label=Split({"stable": 0.5, "canary": 0.5}))
    assert [retrieval.user_id for retrieval in retrievals] == users
    assert {retrieval.label for retrieval in retrievals} == {"stable", "canary"}


class TestRecordedServables:
    def test_classify_and_regress(self, real: Any, own: Live) -> None:
        options: dict[str, Any] = {"model": "half_plus_two", "label": "stable"}
        examples = [{"x": 1.0}, {"x": 4.0}]
        assert real.regress(examples, signature="regress_x_to_y", **options) == [2.5, 4.0]
        (first, _) = real.classify(examples, signature="classify_x_to_y", **options)
        assert first.labels == ("low", "high")
        assert sum(first.scores) == pytest.approx(1.0)
        with pytest.raises(InvalidRequest):
            real.regress(examples, signature="serving_default", **options)

    @pytest.mark.parametrize(
        ("signature", "values"),
        [
            ("float32", [1.5, -2.0, float("inf")]),
            ("float64", [1.5, 1e300]),
            ("int32", [-(2**31), 7]),
            ("int64", [-(2**63), 2**63 - 1]),
            ("uint8", [0, 255]),
            ("bool", [True, False]),
            ("string", ["a", "七人", ""]),
            ("int8", [-128, 127]),
            ("int16", [-(2**15), 5]),
            ("uint16", [0, 65535]),
            ("uint32", [0, 2**32 - 1]),
            ("half", [1.5, -2.0]),
        ],
    )
    def test_values_of_every_type_come_back(
        self, real: Any, transport: str, own: Live, signature: str, values: list[Any]
    ) -> None:
        if transport == "rest" and signature in ("uint16", "half"):
            with pytest.raises(Unsupported, match=r"use GrpcClient"):
                real.predict({"x": values}, signature=signature, model="dtypes")
            return
        prediction = real.predict({"x": values}, signature=signature, model="dtypes")
        assert prediction["y"] == values
        kinds = {"half": "float16", "string": "object"}
        array = np.array(values, dtype=kinds.get(signature, signature))
        prediction = real.predict({"x": array}, signature=signature, model="dtypes")
        assert prediction["y"].dtype == array.dtype
        assert prediction["y"].tolist() == array.tolist()

    def test_bytes_and_scalars(self, real: Any, own: Live) -> None:
        prediction = real.predict({"data": [b"\xff\x00"]}, signature="bytes_one", model="dtypes")
        assert prediction["data_bytes"] == [b"\xff\x00"]
        assert real.predict({"x": 2.5}, signature="scalar_float", model="dtypes")["y"] == 2.5
        assert real.predict({"x": [1.0, 2.0]}, signature="scalar_out", model="dtypes")["y"] == 3.0


@pytest.fixture(scope="module")
def without_ops(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    if os.environ.get("SHORTLIST_SERVER_COMMAND") or os.environ.get("SHORTLIST_SERVER"):
        pytest.skip("the embedded server's own switch takes the ScaNN ops away")
    bare = tmp_path_factory.mktemp("bare")
    for name in ("retrieval_brute_force", "retrieval_scann"):
        target = bare / name / "1"
        target.parent.mkdir()
        os.symlink(repository / name / "1", target)
    # Without its warm-up file the servable loads, and only requests fail.
    scann = bare / "retrieval_scann"
    (scann / "1").unlink()
    shutil.copytree(repository / "retrieval_scann" / "1", scann / "1")
    (scann / "1" / "assets.extra" / "tf_serving_warmup_requests").unlink()
    yield from started(bare, tmp_path_factory.mktemp("log"), "--enable_scann_ops=false")


def test_a_server_without_scanns_ops_is_explained(without_ops: Live, transport: str) -> None:
    with (
        make_client(transport, without_ops.address(transport), timeout=60) as client,
        pytest.raises(MissingOp, match=r"Scann>.*shortlist serve --server embedded"),
    ):
        client.retrieve(["1"], model="retrieval_scann")


@pytest.mark.parametrize("kind", ["grpc", "aio"])
def test_a_reload_moves_a_label(own: Live, kind: str, repository: Path) -> None:
    def config(version: int) -> messages.ModelServerConfig:
        message = messages.ModelServerConfig()
        for folder in sorted(repository.glob("[a-z]*")):
            entry = message.model_config_list.config.add(
                name=folder.name, base_path=str(folder), model_platform="tensorflow"
            )
            entry.model_version_policy.all.SetInParent()
            if (folder / "2").exists():
                entry.version_labels["stable"] = version
                entry.version_labels["canary"] = 2
        return message

    with make_client(kind, own.grpc, timeout=60) as client:
        client.reload_config(config(2))
        assert client.metadata(label="stable").version == 2
        client.reload_config(config(1))
        assert client.metadata(label="stable").version == 1
        client.reload_config(str(config(1)))
