"""What users plausibly pass is taken, or refused with a remedy that works when followed."""

import decimal
import enum
import math
import pathlib
import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from shortlist.clients import Filter, Limits, RetryPolicy, Split
from tests.unit.clients.conftest import make_client
from tests.unit.clients.toys import CANDIDATES, ToyServer

USER = uuid.UUID(int=7)


class Team(enum.Enum):
    RED = "red"
    ONE = 1


class Label(enum.StrEnum):
    STABLE = "stable"


class Old(str, enum.Enum):  # noqa: UP042 - as written before Python 3.11
    STABLE = "stable"


class Three(enum.IntEnum):
    THREE = 3


NAMES = {
    "np": np,
    "Decimal": decimal.Decimal,
    "UUID": uuid.UUID,
    "Team": Team,
    "PosixPath": pathlib.PosixPath,
    "Fraction": Fraction,
    "Label": Label,
}


def followed(message: str) -> Any:
    """Return the value of the code that a message tells the user to use."""
    remedy = re.search(r"; use (.*)$", message)
    assert remedy is not None, message
    return eval(remedy.group(1), NAMES)


# --- ids -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "users",
    [
        ("42",),
        {"42"},
        {"42": None},
        np.array(["42"]),
        np.array(["42"], dtype=object),
        [np.str_("42")],
    ],
)
def test_ids_from_any_collection_of_strings(client: Any, users: Any) -> None:
    (retrieval,) = client.retrieve(users, k=1)
    assert type(retrieval.user_id) is str
    assert [retrieval] == client.retrieve(iter(["42"]), k=1)


def test_an_enum_of_strings_is_what_it_holds(client: Any) -> None:
    for label in (Label.STABLE, Old.STABLE, np.str_("stable")):
        (retrieval,) = client.retrieve([label], k=1, label=label)
        assert (retrieval.user_id, retrieval.label) == ("stable", "stable")


@pytest.mark.parametrize(
    ("value", "right"),
    [
        (1001, "1001"),
        (np.int64(1001), "1001"),
        (b"1001", "1001"),
        (np.bytes_(b"1001"), "1001"),
        (12550.0, "12550"),
        (np.float64(12550.0), "12550"),
        (np.float32(12550.0), "12550"),
        (0.5, "0.5"),
        (decimal.Decimal(7), "7"),
        (USER, str(USER)),
        (pathlib.PosixPath("a/b"), "a/b"),
        (Team.RED, "red"),
    ],
)
def test_the_remedy_for_an_id_is_the_id(
    client: Any, server: ToyServer, value: Any, right: str
) -> None:
    calls: tuple[Callable[[], Any], ...] = (
        lambda: client.retrieve(["42", value]),
        lambda: client.similar([value]),
        lambda: client.embed([value]),
        lambda: client.rate([("42", value)]),
        lambda: client.retrieve(["42"], exclude=[value]),
        lambda: client.retrieve(["42"], exclude={"42": [value]}),
        lambda: client.retrieve(["42"], exclude={value: ["c01"]}),
    )
    for call in calls:
        with pytest.raises(ValueError, match="takes strings, got") as caught:
            call()
        assert followed(str(caught.value)) == right
    assert server.calls == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "takes strings, got None; leave it out"),
        (math.nan, "takes strings, got nan; leave it out"),
        (np.float32("nan"), r"takes strings, got .*nan.*; leave it out"),
        (b"\xff", r"takes strings, got b'\\xff', which is not UTF-8"),
        (True, "takes strings, got True$"),
        (["42"], r"takes strings, got \['42'\]; pass one flat list of strings"),
        (("42", "7"), "pass one flat list of strings"),
        (np.array(["42"]), "pass one flat list of strings"),
        (object(), r"takes strings, got <object .*> \(object\)$"),
    ],
)
def test_what_cannot_be_an_id_gets_no_wrong_advice(client: Any, value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        client.retrieve(["42", value])


@pytest.mark.parametrize(
    ("users", "text"),
    [
        ("42", r"takes a list, got the string '42'; use \['42'\]"),
        (np.str_("42"), r"takes a list, got the string '42'; use \['42'\]"),
        (b"42", "takes a list of strings, got b'42'"),
        (42, "takes a list of strings, got 42"),
        (None, "takes a list of strings, got None"),
        (np.array([]), "user_ids is empty"),
    ],
)
def test_a_single_value_is_not_a_list(client: Any, users: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"user_ids.*{text}|{text}"):
        client.retrieve(users)


# --- numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize("k", [3, np.int64(3), np.int8(3), np.array(3), Three.THREE])
def test_k_is_any_integer(client: Any, k: Any) -> None:
    assert len(client.retrieve(["42"], k=k)[0]) == 3
    assert len(client.retrieve(["42"], k=k, exclude=["c01"])[0]) == 3
    assert len(client.similar([CANDIDATES[0]], k=k)[0]) == 3


@pytest.mark.parametrize("version", [1, np.int64(1), np.uint8(1)])
def test_a_version_is_any_integer(client: Any, version: Any) -> None:
    assert client.retrieve(["42"], version=version)[0].version == 1
    assert client.metadata(version=version).version == 1
    assert client.status(version=version).available == [1]


@pytest.mark.parametrize("value", ["3", 3.0, np.float64(3.0), np.float32(3.0), decimal.Decimal(3)])
@pytest.mark.parametrize("name", ["k", "version"])
def test_the_remedy_for_a_whole_number_is_the_number(client: Any, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least") as caught:
        client.retrieve(["42"], **{name: value})
    assert followed(str(caught.value)) == 3


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("k", 2.5, "of at least 1, got 2.5$"),
        ("k", math.inf, "got inf$"),
        ("k", "many", "got 'many'$"),
        ("k", True, "got True$"),
        ("k", np.True_, r"got .*True.* \(bool_?\)$"),
        ("k", -1, "of at least 1, got -1$"),
        ("k", 2**31, "of at most 2147483647, got 2147483648"),
        ("version", True, "of at least 0, got True$"),
        ("version", 2**63, "of at most 9223372036854775807"),
        ("version", "stable", "got 'stable'$"),
    ],
)
def test_other_whole_numbers_are_refused(client: Any, name: str, value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number {text}|{text}"):
        client.retrieve(["42"], **{name: value})


@pytest.mark.parametrize(
    "timeout",
    [5, 5.0, np.float64(5), np.float32(5), np.int64(5), Fraction(5), math.inf, 1e10, 1e300],
)
def test_a_timeout_is_any_positive_number(transport: str, server: ToyServer, timeout: Any) -> None:
    with make_client(transport, server.address(transport), timeout=timeout) as client:
        client.status(timeout=timeout)
        client.wait_until_available(timeout=timeout, poll_interval=timeout)
        assert len(client.retrieve(["42"])[0]) == 10


@pytest.mark.parametrize(
    ("timeout", "text"),
    [
        ("5", r"must be a number, got '5'; use float\('5'\)"),
        ("long", "must be a number, got 'long'$"),
        (decimal.Decimal(5), r"use float\(Decimal\('5'\)\)"),
        (timedelta(seconds=5), r"use its total_seconds\(\)"),
        (True, "must be a number, got True"),
        (math.nan, "must be a number, got nan"),
        (-1, "must be a positive number of seconds, got -1"),
        ((1, 5), r"must be a number, got \(1, 5\) \(tuple\)"),
    ],
)
def test_other_timeouts_are_refused(transport: str, timeout: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"timeout {text}|timeout.*{text}"):
        make_client(transport, "127.0.0.1:1", timeout=timeout)
    with make_client(transport, "127.0.0.1:1") as client:
        for call in (client.status, client.wait_until_available):
            with pytest.raises(ValueError, match=text):
                call(timeout=timeout)
        with pytest.raises(ValueError, match=text):
            client.wait_until_available(poll_interval=timeout)
    with pytest.raises(ValueError, match=text):
        RetryPolicy(attempt_timeout=timeout)
    with pytest.raises(ValueError, match=text):
        Limits(keepalive=timeout)


def test_no_limit_of_time_is_infinity(transport: str) -> None:
    with pytest.raises(ValueError, match=r"got None; for no limit use float\('inf'\)"):
        make_client(transport, "127.0.0.1:1", timeout=None)


# --- names -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model", "label"])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"stable", r"; use b'stable'\.decode\(\)"),
        (Team.RED, "; use Team.RED.value"),
        (Team.ONE, "; use Team.ONE.name"),
        (pathlib.PosixPath("stable"), r"; use str\(PosixPath\('stable'\)\)"),
        (1, r"; use str\(1\)"),
        ("", "non-empty string, got ''"),
    ],
)
def test_names_are_strings(client: Any, name: str, value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a.*{text}"):
        client.retrieve(["42"], **{name: value})


# --- exclusions and filters ------------------------------------------------------------


@pytest.mark.parametrize(
    ("exclude", "text"),
    [
        (b"c01", "exclude takes a list of strings, got b'c01'"),
        ({"42": "c01"}, r"exclude\['42'\] takes a list, got the string 'c01'; use \['c01'\]"),
        ({42: ["c01"]}, r"the keys of exclude takes strings, got 42; use str\(42\)"),
        ({"42": None}, r"exclude\['42'\] takes a list of strings, got None"),
    ],
)
def test_an_exclusion_that_would_exclude_nothing_is_refused(
    client: Any, exclude: Any, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        client.retrieve(["42"], exclude=exclude)


@pytest.mark.parametrize(
    "exclude", [(), {}, [], {"42": []}, {"7": ["c01"]}, np.array([], dtype=str)]
)
def test_nothing_to_exclude_needs_no_other_signature(
    client: Any, server: ToyServer, exclude: Any
) -> None:
    client.retrieve(["42"], exclude=exclude)
    assert server.signatures() == ["serving_default"]


def test_exclusions_come_in_arrays_and_sets(client: Any) -> None:
    best = client.retrieve(["42"], k=2)[0].candidate_ids
    for exclude in (np.array(best), set(best), {"42": np.array(best)}):
        assert not {*best} & {*client.retrieve(["42"], exclude=exclude)[0].candidate_ids}


def test_exclude_seen_is_a_bool(client: Any) -> None:
    assert client.retrieve(["42"], exclude_seen=np.True_) == client.retrieve(
        ["42"], exclude_seen=True
    )
    for value in ("false", ["c01"], 1, None):
        with pytest.raises(ValueError, match="exclude_seen must be True or False"):
            client.retrieve(["42"], exclude_seen=value)


def test_a_filter_writes_numbers_as_the_server_reads_them() -> None:
    values: Any = {"year": [1990, np.int64(1991)], "new": [True], "genre": np.array(["Drama"])}
    bounds: Any = {"year": np.float64(1990.5), "price": np.int64(3)}
    chosen = Filter(any=values, min=bounds)
    assert chosen.any == {"year": ["1990", "1991"], "new": ["True"], "genre": ["Drama"]}
    assert {name: repr(value) for name, value in chosen.min.items()} == {
        "year": "1990.5",
        "price": "3",
    }


@pytest.mark.parametrize(
    ("conditions", "text"),
    [
        ({"any": {"genre": "Comedy"}}, r"takes a list, got the string 'Comedy'; use \['Comedy'\]"),
        ({"any": {"year": 1990}}, "'year' of Filter.any=….* takes a list of strings, got 1990"),
        ({"any": {"year": [1990.0]}}, r"got 1990.0; use str\(int\(1990.0\)\)"),
        ({"any": {"genre": [None]}}, "got None; leave it out"),
        ({"all": {"genre": [b"a"]}}, r"use b'a'\.decode\(\)"),
        ({"any": ["genre=Comedy"]}, r"takes a mapping such as {'genre': \['Comedy'\]}"),
        ({"min": ["year=1990"]}, "takes a mapping such as {'year': 1990}"),
        ({"min": {"year": "1990"}}, r"must be a number, got '1990'; use float\('1990'\)"),
        ({"max": {"year": math.nan}}, "must be a number, got nan"),
        ({"max": {5: 1}}, r"an attribute of Filter.max=….* must be a string, got 5"),
    ],
)
def test_wrong_filters_are_refused(conditions: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Filter(**conditions)


def test_a_filter_is_a_filter(client: Any) -> None:
    with pytest.raises(ValueError, match=r"filter takes a Filter, got {'genre'.*; use Filter\("):
        client.retrieve(["42"], filter={"genre": ["even"]})


@pytest.mark.parametrize(
    ("shares", "text"),
    [
        ([("stable", 1.0)], "Split takes a mapping such as {'stable': 0.9"),
        ({"stable": "1"}, r"the share of 'stable' must be a number, got '1'; use float\('1'\)"),
        ({b"stable": 1.0}, r"use b'stable'\.decode\(\)"),
    ],
)
def test_wrong_splits_are_refused(shares: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Split(shares)
    with pytest.raises(ValueError, match=r"salt must be a string, got 5; use str\(5\)"):
        Split({"stable": 1.0}, salt=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"a user id is a string, got 5; use str\(5\)"):
        Split({"stable": np.float64(1)}).label_for(5)  # type: ignore[arg-type]


# --- pairs, inputs and examples --------------------------------------------------------


def test_pairs_come_from_any_iterable(client: Any) -> None:
    pairs = [("42", "c01"), ("7", "c02")]
    for many in (iter(pairs), np.array(pairs), dict(pairs).items(), [list(pair) for pair in pairs]):
        assert client.rate(many) == client.rate(pairs)
    for wrong in (("42", "c01"), [b"ab"], [42], [("42",)]):
        with pytest.raises(
            ValueError, match=r"pairs takes a list of .user_id, candidate_id. pairs"
        ):
            client.rate(wrong)
    with pytest.raises(
        ValueError, match=r"takes a list of .user_id, candidate_id. pairs, got None"
    ):
        client.rate(None)


@pytest.mark.parametrize(
    "x",
    [
        [2, 4],
        (2.0, 4.0),
        [np.float32(2), np.float64(4)],
        [np.int64(2), 4],
        np.array([2, 4], np.float16),
        [np.array(2.0), 4],
    ],
)
def test_inputs_hold_numpys_numbers(client: Any, x: Any) -> None:
    answer = client.predict({"x": x}, signature="half_plus_two", arrays=False)
    assert answer["y"] == [3.0, 4.0]


def test_inputs_are_lists_of_arrays(client: Any) -> None:
    rest = {"n": np.int64(5), "flags": [np.True_, False], "blob_bytes": [np.bytes_(b"a")]}
    answer = client.predict(
        {"x": [np.array([1.0, 2.0]), [3, np.float32(4)]], **rest}, signature="echo", arrays=False
    )
    assert answer["x"] == [[1.0, 2.0], [3.0, 4.0]]
    assert (answer["n"], answer["flags"], answer["blob_bytes"]) == (5, [True, False], [b"a"])


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"x": ["2"]}, r"input 'x': '2' does not fit DT_FLOAT \(numbers\); use float\('2'\)"),
        ({"x": [None]}, r"input 'x': None does not fit DT_FLOAT \(numbers\)$"),
        ({"x": [True]}, "input 'x': True does not fit DT_FLOAT"),
        ([1.0], r"inputs takes a mapping such as {'x': \[1.0\]}, got \[1.0\]"),
    ],
)
def test_wrong_inputs_are_refused(client: Any, inputs: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        client.predict(inputs, signature="half_plus_two")


def test_the_remedy_for_a_string_input_is_the_string(client: Any) -> None:
    for value, right in ((1001, "1001"), (np.int64(1001), "1001"), (12550.0, "12550")):
        with pytest.raises(ValueError, match="does not fit DT_STRING") as caught:
            client.predict({"user_id": [value]})
        assert followed(str(caught.value)) == right


def test_outputs_and_examples_are_lists(client: Any) -> None:
    with pytest.raises(ValueError, match=r"outputs takes a list, got .*; use \['scores'\]"):
        client.predict({"user_id": ["42"]}, outputs="scores")
    with pytest.raises(ValueError, match=r"examples takes a list of mappings, got {'x': 1.0}"):
        client.regress({"x": 1.0})
    with pytest.raises(ValueError, match=r"an example takes a mapping such as {'x': 1.0}, got 1.0"):
        client.classify([1.0])
    assert client.regress([{"x": np.float32(2)}, {"x": [np.float64(4)]}]) == [3.0, 4.0]
