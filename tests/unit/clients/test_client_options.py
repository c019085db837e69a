"""Options of a client are taken, or refused with what to write instead."""

import math
from typing import Any

import numpy as np
import pytest

from shortlist.clients import Limits, RetryPolicy, Tls
from tests.unit.clients.conftest import make_client


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"address": None}, "an address looks like 'host:PORT', got None"),
        ({"address": 8500}, "an address looks like 'host:PORT', got 8500"),
        ({"address": ("127.0.0.1", 8500)}, "got 8500|needs a port"),
        ({"address": b"127.0.0.1:8500"}, "an address looks like 'host:PORT'"),
        ({"retry": 0}, r"retry takes a RetryPolicy, got 0; .* RetryPolicy\(max_attempts=1\)"),
        ({"retry": False}, "retry takes a RetryPolicy, got False"),
        ({"limits": 5}, "limits takes Limits, got 5"),
        ({"hooks": print}, "hooks takes a list of functions, got .*; pass it in a list"),
        ({"hooks": ["log"]}, "hooks takes a list of functions"),
        ({"tls": None}, "tls must be True, False or a Tls, got None"),
        ({"tls": "ca.pem"}, r"got 'ca.pem'; use Tls\(ca='ca.pem'\)"),
        ({"headers": ["a=b"]}, "headers takes a mapping such as {'authorization'"),
        (
            {"headers": {"authorization": b"x"}},
            r"header 'authorization' must be a string, got bytes; use its decode\(\)",
        ),
        (
            {"headers": {"X Team": "a"}},
            "a header's name has .* one that starts with 'X' cannot be sent",
        ),
        (
            {"headers": {"a": "b\nc"}},
            "header 'a' cannot be sent: its value of 3 characters has others than printable ASCII",
        ),
        ({"headers": {"trace-bin": "a"}}, "does not end in -bin"),
        ({"model": None}, "model must be a string, got None"),
    ],
)
def test_wrong_options_say_what_is_right(transport: str, options: Any, text: str) -> None:
    port = "8501" if transport == "rest" else "8500"
    with pytest.raises(ValueError, match=text.replace("PORT", port)):
        make_client(transport, **{"address": "127.0.0.1:1", **options})


def test_a_function_of_headers_is_checked_when_it_is_called(transport: str) -> None:
    with (
        make_client(transport, "127.0.0.1:1", headers=lambda: {"a": "b\n"}) as client,
        pytest.raises(ValueError, match=r"header 'a'.* cannot be sent"),
    ):
        client.status()


@pytest.mark.parametrize(
    ("kind", "address", "text"),
    [
        ("rest", "http://h:8501/v1/models/m:predict", "ends before /v1.*; use 'http://h:8501'"),
        ("grpc", "http://127.0.0.1:8500", "a gRPC address looks like 'host:8500', without http://"),
        ("grpc", "127.0.0.1", "a gRPC address needs a port, got .*; use '127.0.0.1:8500'"),
        ("aio", "localhost", "a gRPC address needs a port"),
        ("grpc", "127.0.0.1:8501/v1", "without http:// and path"),
        ("grpc", "tcp://127.0.0.1:8500", "without http:// and path"),
        ("rest", "http://h:8501/v1", "ends before /v1.*; use 'http://h:8501'"),
    ],
)
def test_addresses_have_the_form_of_their_transport(kind: str, address: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make_client(kind, address)


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        ("grpc", "dns:///models.example:8500"),
        ("grpc", "unix:/run/models.sock"),
        ("grpc", "unix:models.sock"),
        ("grpc", "ipv4:127.0.0.1:8500,127.0.0.1:8600"),
        ("aio", "[::1]:8500"),
        ("rest", "[::1]:8501"),
        ("rest", "models.example"),
        ("rest", "https://models.example/team/v1beta"),
    ],
)
def test_other_addresses_are_taken(kind: str, address: str) -> None:
    make_client(kind, address).close()


@pytest.mark.parametrize("value", [np.int64(3), 3])
def test_limits_are_any_integers(value: Any) -> None:
    assert Limits(batch_size=value, parallel=value, max_in_flight=value).batch_size == 3
    assert RetryPolicy(max_attempts=value, initial_backoff=np.float64(0.5)).max_attempts == 3


def test_wrong_limits_say_what_is_right() -> None:
    for name in ("batch_size", "parallel", "max_connections", "max_in_flight"):
        with pytest.raises(ValueError, match=rf"{name} must be .*, got '8'; use int\('8'\)"):
            Limits(**{name: "8"})  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match="keepalive must be finite, got inf; for no pings use None"
    ):
        Limits(keepalive=math.inf)
    with pytest.raises(ValueError, match=r"max_attempts must be .*, got 2.0; use int\(2.0\)"):
        RetryPolicy(max_attempts=2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="budget must be a number, got None"):
        RetryPolicy(budget=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ca must be a path, got True"):
        Tls(ca=True)  # type: ignore[arg-type]
