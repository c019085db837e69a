"""Retrieval models that Shortlist did not export, or that it indexed for others' query towers."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from shortlist.clients import CallEvent, Filter, Limits, RetrievalInterface, RetryPolicy, Split
from shortlist.clients.errors import InvalidRequest, SignatureNotFound, Unsupported
from shortlist.clients.testing import FakeModel, FakeSignature
from shortlist.clients.types import State
from tests.unit.clients.conftest import make_client
from tests.unit.clients.toys import CANDIDATES, ToyServer, ranking, score

MODEL = "retrieval_brute_force"
TFRS = RetrievalInterface(query="input_1", ids="output_2", scores="output_1")
STRINGS, FLOATS = ("DT_STRING", [-1]), ("DT_FLOAT", [-1])
MATRIX = {"output_1": ("DT_FLOAT", [-1, 10]), "output_2": ("DT_STRING", [-1, 10])}
CUSTOMERS = {"customer": STRINGS, "age": FLOATS, "watched": ("DT_STRING", [-1, -1])}


def plain(**options: Any) -> FakeModel:
    return FakeModel(**{"interface": TFRS, **options})


def play(server: ToyServer, model: FakeModel) -> FakeModel:
    server.models[MODEL] = model
    return model


@pytest.fixture
def tfrs(server: ToyServer) -> FakeModel:
    return play(server, plain())


@pytest.fixture
def tower(server: ToyServer) -> FakeModel:
    """A servable of `shortlist index`: the signatures have the query tower's own inputs."""
    return play(server, FakeModel(inputs=CUSTOMERS))


@pytest.fixture
def named(transport: str, server: ToyServer) -> Iterator[Any]:
    """A client that knows the tensors of `tower`."""
    customer = RetrievalInterface(query="customer")
    with make_client(transport, server.address(transport), interface=customer) as client:
        yield client


@pytest.fixture
def chosen(transport: str, server: ToyServer) -> Iterator[Any]:
    """A client that knows the tensors of a plain model."""
    with make_client(transport, server.address(transport), interface=TFRS) as client:
        yield client


# --- plain models ----------------------------------------------------------------------


def test_a_plain_index_answers_like_any_servable(
    client: Any, server: ToyServer, tfrs: FakeModel
) -> None:
    first, second = client.retrieve(["42", "7"], k=3)
    assert [list(first), list(second)] == [ranking("42")[:3], ranking("7")[:3]]
    assert (first.user_id, first.known_user, first.known_history) == ("42", None, None)
    assert server.operations() == ["predict", "metadata", "predict"]
    client.retrieve(["42"], k=3)
    client.retrieve(["42"])
    assert server.operations()[3:] == ["predict", "predict"]


def test_an_exported_servable_is_asked_without_a_look_at_its_metadata(
    client: Any, server: ToyServer
) -> None:
    client.retrieve(["42"])
    client.embed(["42"])
    assert server.operations() == ["predict", "predict"]


def test_outputs_alone_may_differ(client: Any, server: ToyServer) -> None:
    play(server, plain(interface=replace(TFRS, query="user_id")))
    assert list(client.retrieve(["42"], k=2)[0]) == ranking("42")[:2]
    assert list(client.retrieve(["7"], k=2)[0]) == ranking("7")[:2]
    assert server.operations() == ["predict", "metadata", "predict", "predict"]


@pytest.mark.parametrize(
    ("name", "dtype", "shape"),
    [
        ("user_id", "DT_STRING", [-1, 1]),
        ("user_id", "DT_INT64", [-1]),
        ("input_1", "DT_INT64", [-1, 1]),
        ("input_1", "DT_INT32", [-1]),
    ],
)
def test_queries_have_the_type_and_shape_of_the_input(
    client: Any, server: ToyServer, name: str, dtype: str, shape: list[int]
) -> None:
    inputs = {name: (dtype, shape)}
    play(server, plain(interface=replace(TFRS, query=name), inputs=inputs))
    first, second = client.retrieve(["42", "-7"], k=2)
    assert [list(first), list(second)] == [ranking("42")[:2], ranking("-7")[:2]]
    ids = ["42", "-7"] if dtype == "DT_STRING" else [42, -7]
    assert server.calls[-1].inputs == {name: ids if len(shape) == 1 else [[i] for i in ids]}


@pytest.mark.parametrize(("dtype", "wrong"), [("DT_INT64", "4_2"), ("DT_INT32", str(2**31))])
def test_other_user_ids_than_whole_numbers_are_named(
    client: Any, server: ToyServer, dtype: str, wrong: str
) -> None:
    play(server, plain(inputs={"input_1": (dtype, [-1])}))
    for user in ("abc", "", wrong):
        expected = rf"takes whole numbers \(input_1: {dtype} \[\?\]\), got {user!r}$"
        with pytest.raises(ValueError, match=expected):
            client.retrieve(["42", user])


def test_whole_numbers_as_candidate_ids_are_strings(client: Any, server: ToyServer) -> None:
    model = play(server, plain(candidates={"17": {}, "9000000000": {}}))
    usual = model.signatures["serving_default"]

    def run(inputs: Mapping[str, Any], version: int) -> Mapping[str, Any]:
        outputs = usual.run(inputs, version)
        return {**outputs, "output_2": [list(map(int, row)) for row in outputs["output_2"]]}

    outputs = {**MATRIX, "output_2": ("DT_INT64", [-1, 2])}
    model.signatures["serving_default"] = replace(usual, outputs=outputs, run=run)
    (retrieval,) = client.retrieve(["42"])
    assert sorted(retrieval.candidate_ids) == ["17", "9000000000"]


def test_a_default_k_is_satisfied_by_fewer_and_a_chosen_one_is_not(
    client: Any, server: ToyServer, tfrs: FakeModel
) -> None:
    few = RetrievalInterface(query="input_1")  # outputs as in the contract
    for interface, names in ((TFRS, MATRIX), (few, None)):
        model = play(server, plain(interface=interface, candidates={"a": {}, "b": {}, "c": {}}))
        signature = model.signatures["serving_default"]
        shapes = {name: (dtype, [-1, 3]) for name, (dtype, _) in signature.outputs.items()}
        model.signatures["serving_default"] = replace(signature, outputs=shapes)
        assert len(client.retrieve(["42"])[0]) == 3
        with pytest.raises(SignatureNotFound, match="and answers 3 candidates at most, fixed"):
            client.retrieve(["42"], k=4)
        assert names is None or len(client.retrieve(["42"], k=3)[0]) == 3


def test_a_k_beyond_an_answer_of_unknown_size_is_named(client: Any, server: ToyServer) -> None:
    model = play(server, plain())
    signature = model.signatures["serving_default"]
    unknown = {name: (dtype, [-1, -1]) for name, (dtype, _) in signature.outputs.items()}
    model.signatures["serving_default"] = replace(signature, outputs=unknown)
    assert len(client.retrieve(["42"], k=10)[0]) == 10
    with pytest.raises(SignatureNotFound, match=r"at most, fixed when it was saved \(k=10\)"):
        client.retrieve(["42"], k=11)


@pytest.mark.parametrize(
    ("arguments", "lacks"),
    [
        ({"exclude": ["c01"]}, "cannot exclude candidates; publish it with `shortlist index`"),
        ({"exclude_seen": True}, "cannot exclude seen candidates"),
        ({"filter": Filter(min={"year": 2000})}, "cannot filter candidates"),
        (
            {"exclude": ["c01"], "filter": Filter(all={"a": ["b"]})},
            "cannot exclude candidates or filter candidates",
        ),
        ({"history": [["c01"]]}, "cannot take histories; export a model with Shortlist"),
        ({"features": [{"age": 3}]}, "cannot take features"),
    ],
)
def test_what_a_plain_index_cannot_do_is_named(
    client: Any, tfrs: FakeModel, arguments: dict[str, Any], lacks: str
) -> None:
    text = rf"^servable '{MODEL}' has one signature, serving_default, and {re.escape(lacks)}"
    for _ in range(2):
        with pytest.raises(SignatureNotFound, match=text):
            client.retrieve(["42"], **arguments)
        client.retrieve(["42"])  # by now the interface is known


@pytest.mark.parametrize("method", ["embed", "similar", "rate"])
def test_other_calls_are_named_too(client: Any, tfrs: FakeModel, method: str) -> None:
    argument: Any = [("42", "c01")] if method == "rate" else ["42"]
    with pytest.raises(SignatureNotFound, match="has one signature, serving_default, and cannot"):
        getattr(client, method)(argument)


@pytest.mark.parametrize(
    ("inputs", "outputs", "text"),
    [
        ({"x": STRINGS}, {"vector": ("DT_FLOAT", [-1, 8])}, "output with candidate ids of serving"),
        ({"x": ("DT_STRING", [])}, MATRIX, r"is missing \(a string or whole number per row\)"),
        ({"x": STRINGS, "y": STRINGS}, MATRIX, "any of x, y; choose by --signature, --input"),
    ],
)
def test_a_model_that_cannot_be_asked_says_why(
    client: Any, server: ToyServer, inputs: Any, outputs: Any, text: str
) -> None:
    signature = FakeSignature(inputs=inputs, outputs=outputs, run=lambda inputs, version: {})
    play(server, FakeModel(signatures={"serving_default": signature}))
    with pytest.raises(SignatureNotFound, match=rf"^servable .* cannot be queried: .*{text}"):
        client.retrieve(["42"])


def test_a_model_without_signatures_says_how_to_save_it(client: Any, server: ToyServer) -> None:
    noop = FakeSignature(inputs={}, outputs={}, run=lambda inputs, version: {})
    play(server, FakeModel(signatures={"__saved_model_init_op": noop}))
    with pytest.raises(SignatureNotFound, match="call the index once before saving it"):
        client.retrieve(["42"])


def test_a_refusal_by_an_exported_servable_stays_what_it_is(client: Any, server: ToyServer) -> None:
    server.fail("INVALID_ARGUMENT", "so it is")
    with pytest.raises(InvalidRequest, match="so it is"):
        client.retrieve(["42"])
    assert server.operations() == ["predict", "metadata"]
    server.fail("INVALID_ARGUMENT", "so it is")
    with pytest.raises(InvalidRequest, match="so it is"):
        client.embed(["42"])


# --- others' query towers --------------------------------------------------------------

WATCHED: list[dict[str, Any]] = [
    {"age": 33, "watched": ["c01", "c02"]},
    {"age": "2.5", "watched": "c03"},
]


def test_other_inputs_are_features(named: Any, server: ToyServer, tower: FakeModel) -> None:
    first, second = named.retrieve(["42", "7"], features=WATCHED, k=3)
    assert list(first) == ranking("42/33.0/c01/c02")[:3]
    assert list(second) == ranking("7/2.5/c03")[:3]
    assert server.calls[-1].signature == "serving_default"
    assert server.calls[-1].inputs == {
        "customer": ["42", "7"],
        "age": [33.0, 2.5],
        "watched": [["c01", "c02"], ["c03", ""]],
    }


def test_k_exclusions_and_filters_hold_for_other_towers(
    named: Any, server: ToyServer, tower: FakeModel
) -> None:
    options: dict[str, Any] = {"features": WATCHED[:1]}
    whole = ranking("42/33.0/c01/c02")
    assert list(named.retrieve(["42"], k=20, **options)[0]) == whole[:20]
    excluded = whole[0][0]
    assert list(named.retrieve(["42"], k=2, exclude=[excluded], **options)[0]) == whole[1:3]
    even = ranking("42/33.0/c01/c02", [CANDIDATES[i] for i in (6, 8, 10)])
    conditions = Filter(any={"genre": ["even"]}, min={"year": 1995}, max={"year": 2000})
    assert list(named.retrieve(["42"], filter=conditions, **options)[0]) == even
    assert server.calls[-1].signature == "retrieve"


def test_other_towers_embed_and_find_similar_candidates(named: Any, tower: FakeModel) -> None:
    (embedding,) = named.embed(["42"], features=WATCHED[:1])
    expected = [score("42/33.0/c01/c02", str(axis)) for axis in range(3)]
    assert embedding.values == pytest.approx(expected)
    assert len(named.similar(["c01"], k=2)[0]) == 2


def test_a_user_id_of_another_name_needs_no_features(client: Any, server: ToyServer) -> None:
    play(server, FakeModel(inputs={"person": ("DT_INT64", [-1])}))
    assert list(client.retrieve(["42"], k=2)[0]) == ranking("42")[:2]
    assert client.embed(["42"])[0].values == pytest.approx([score("42", str(i)) for i in range(3)])
    seen = client.retrieve(["42"], exclude_seen=True, exclude=["c01"], k=2)
    assert "c01" not in seen[0].candidate_ids


def test_an_option_that_other_towers_lack_is_named(
    named: Any, server: ToyServer, tower: FakeModel
) -> None:
    full = tower.signatures["retrieve"]
    inputs = {name: spec for name, spec in full.inputs.items() if name != "exclude_seen"}
    tower.signatures["retrieve"] = replace(full, inputs=inputs)
    with pytest.raises(Unsupported, match="has no input 'exclude_seen'"):
        named.retrieve(["42"], features=WATCHED[:1], exclude_seen=True)
    lacks = "cannot take histories; its query tower has the inputs customer, age, watched"
    with pytest.raises(SignatureNotFound, match=lacks):
        named.retrieve(["42"], history=[["c01"]])


@pytest.mark.parametrize(
    ("features", "text"),
    [
        (
            None,
            r"^servable .* needs the features age .*\[\{'age': 2.5, 'watched': \['mobile'\]\}\]",
        ),
        ([{"age": 1}], r"features\[0\] lacks watched;.* or --feature watched=mobile$"),
        ([{"age": 1, "watched": [], "x": 1}], r"no feature 'x'; it has: age \(DT_FLOAT \[\?\]\)"),
        ([{"age": "old", "watched": []}], r"'age' of features\[0\] must be a number .* got 'old'"),
        ([{"age": True, "watched": []}], r"must be a number \(DT_FLOAT \[\?\]\), got True"),
        ([{"age": [1, 2], "watched": []}], r"must be a single value .* got \[1.0, 2.0\]"),
    ],
)
def test_features_that_do_not_fit_are_named(
    named: Any, tower: FakeModel, features: Any, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        named.retrieve(["42"], features=features)


@pytest.mark.parametrize(
    ("spec", "values", "sent"),
    [
        (("DT_INT64", [-1]), ["3", 4], [3, 4]),
        (("DT_BOOL", [-1]), ["true", False], [True, False]),
        (("DT_STRING", [-1]), [3, "tv"], ["3", "tv"]),
        (("DT_FLOAT", [-1, 1]), [3, [4]], [[3.0], [4.0]]),
        (("DT_FLOAT", [-1, 2]), [[1, 2], [3, 4]], [[1.0, 2.0], [3.0, 4.0]]),
        (("DT_STRING", [-1, 3]), [[], "a"], [["", "", ""], ["a", "", ""]]),
        (("DT_INT32", []), [3, 3], 3),
    ],
)
def test_features_have_the_type_and_shape_of_their_input(
    chosen: Any, server: ToyServer, spec: Any, values: list[Any], sent: Any
) -> None:
    model = play(server, plain())
    signature = model.signatures["serving_default"]
    inputs = {**signature.inputs, "extra": spec}
    model.signatures["serving_default"] = replace(signature, inputs=inputs)
    chosen.retrieve(["42", "7"], features=[{"extra": value} for value in values])
    assert server.calls[-1].inputs["extra"] == sent


@pytest.mark.parametrize(
    ("spec", "values", "text"),
    [
        (("DT_FLOAT", [-1, -1]), [[1], [1, 2]], r"features\[0\] must have 2 values, got 1"),
        (("DT_STRING", [-1, 1]), [["a", "b"], "c"], r"must be a single value"),
        (("DT_INT64", [-1]), [2.5, 1], r"must be a whole number .* got 2.5"),
        (("DT_INT32", []), [3, 4], "must be the same for all users"),
        (("DT_FLOAT", [-1, 2, 2]), [1, 2], "cannot be passed as a feature; use predict"),
    ],
)
def test_features_of_another_shape_are_named(
    chosen: Any, server: ToyServer, spec: Any, values: list[Any], text: str
) -> None:
    model = play(server, plain())
    signature = model.signatures["serving_default"]
    inputs = {**signature.inputs, "extra": spec}
    model.signatures["serving_default"] = replace(signature, inputs=inputs)
    with pytest.raises(ValueError, match=text):
        chosen.retrieve(["42", "7"], features=[{"extra": value} for value in values])


# --- choice of tensors -----------------------------------------------------------------


def test_an_interface_chooses_where_types_do_not(transport: str, server: ToyServer) -> None:
    model = play(server, plain())
    signature = model.signatures["serving_default"]
    inputs = {**signature.inputs, "shop": STRINGS}
    model.signatures["serving_default"] = replace(signature, inputs=inputs)
    address, features = server.address(transport), [{"shop": "north"}]
    with (
        make_client(transport, address) as client,
        pytest.raises(SignatureNotFound, match="any of input_1, shop; choose by"),
    ):
        client.retrieve(["42"], features=features)
    with make_client(transport, address, interface=TFRS) as client:
        assert list(client.retrieve(["42"], features=features, k=2)[0]) == ranking("42")[:2]
    wrong = replace(TFRS, ids="movies")
    with (
        make_client(transport, address, interface=wrong) as client,
        pytest.raises(SignatureNotFound, match="'movies'; there are: output_1, output_2; mend"),
    ):
        client.retrieve(["42"], features=features)


def test_an_interface_is_a_retrieval_interface(transport: str) -> None:
    with pytest.raises(ValueError, match=r"interface takes a RetrievalInterface, got 'input_1'"):
        make_client(transport, "127.0.0.1:1", interface="input_1")


# --- changes and failures --------------------------------------------------------------


def test_a_rollout_may_change_the_interface(
    client: Any, server: ToyServer, tfrs: FakeModel
) -> None:
    exported = FakeModel()
    other = plain(interface=RetrievalInterface(query="user", ids="movies", scores="output_1"))
    for model in (tfrs, exported, tfrs, other, exported):
        play(server, model)
        for _ in range(2):
            assert list(client.retrieve(["42"], k=2)[0]) == ranking("42")[:2]
        before = len(server.calls)
        client.retrieve(["42"], k=2)
        assert len(server.calls) == before + 1
    assert client.retrieve(["42"], k=1)[0].known_user is True


def test_batches_and_splits_are_as_ever(transport: str, server: ToyServer) -> None:
    play(
        server,
        plain(versions=dict.fromkeys((1, 2), State.AVAILABLE), labels={"stable": 1, "canary": 2}),
    )
    users = [f"user-{i}" for i in range(250)]
    split = Split({"stable": 0.5, "canary": 0.5})
    limits = Limits(batch_size=100)
    with make_client(transport, server.address(transport), limits=limits) as client:
        together = client.retrieve(users, k=2)
        apart = client.retrieve(users, k=2, label=split)
    assert [row.user_id for row in together] == [row.user_id for row in apart] == users
    assert all(list(row) == ranking(row.user_id)[:2] for row in [*together, *apart])
    assert {row.label for row in apart} == {"stable", "canary"}


def test_failures_on_the_way_are_tried_again(transport: str, server: ToyServer) -> None:
    play(server, plain())
    events: list[CallEvent] = []
    quick = RetryPolicy(initial_backoff=0.001)
    with make_client(
        transport, server.address(transport), retry=quick, hooks=[events.append]
    ) as client:
        server.fail("INVALID_ARGUMENT", "Missing named input: input_1")
        server.fail("UNAVAILABLE")
        server.fail("UNAVAILABLE")
        assert list(client.retrieve(["42"], k=1)[0]) == ranking("42")[:1]
    assert [(event.operation, event.attempts) for event in events] == [
        *(("retrieve", 1), ("metadata", 3), ("retrieve", 1)),
    ]
