"""The public interface: names, types, and few imports."""

import asyncio
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shortlist
from shortlist import clients
from shortlist.clients import AsyncGrpcClient, GrpcClient, RestClient, RetrievalClient
from tests.unit.clients import example
from tests.unit.clients.conftest import make_client
from tests.unit.clients.toys import ToyServer, ranking

PUBLIC = {
    "shortlist.clients": [
        *("AsyncGrpcClient", "AsyncShardedClient", "CallEvent", "Filter", "GrpcClient"),
        *(
            "Limits",
            "RestClient",
            "Retrieval",
            "RetrievalClient",
            "RetrievalInterface",
            "RetryPolicy",
            "ServingError",
            "ShardedClient",
            "Split",
            "Tls",
        ),
    ],
    "shortlist.clients.tensors": ["from_tensor_proto", "is_array", "to_tensor_proto"],
    "shortlist.clients.errors": [
        *("DeadlineExceeded", "InvalidRequest", "LabelNotFound", "LoadFailed", "MissingOp"),
        *("Overloaded", "PermissionDenied", "ProtocolError", "ServableNotFound", "ServerError"),
        *(
            "ServingError",
            "ShortlistError",
            "SignatureNotFound",
            "TooManyInFlight",
            "Unauthenticated",
        ),
        *("Unavailable", "Unsupported", "WrongPort"),
        *("error_class_for_code", "error_class_for_http_status"),
    ],
    "shortlist.clients.types": [
        *("Classification", "Embedding", "Exclude", "Features", "Filter", "Metadata"),
        *(
            "ModelStatus",
            "Prediction",
            "Ranking",
            "Rating",
            "Retrieval",
            "Signature",
            "Similar",
            "State",
        ),
        *("TensorSpec", "VersionStatus"),
    ],
}


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_the_public_names_are_these(module: str) -> None:
    loaded = importlib.import_module(module)
    assert loaded.__all__ == PUBLIC[module]
    assert all(getattr(loaded, name) is not None for name in PUBLIC[module])


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'shortlist\.clients' has no attribute 'GrpcCient'"):
        clients.__getattr__("GrpcCient")
    assert dir(clients) == PUBLIC["shortlist.clients"]


def test_every_module_defines_the_names_it_exports() -> None:
    for info in pkgutil.walk_packages(clients.__path__, "shortlist.clients."):
        module = importlib.import_module(info.name)
        names = getattr(module, "__all__", [])
        assert len(set(names)) == len(names), info.name
        assert all(hasattr(module, name) for name in names), info.name


def test_the_clients_have_the_same_methods_arguments_and_defaults() -> None:
    def interface(kind: Any) -> dict[str, Any]:
        return {
            name: [
                (parameter.name, parameter.kind, parameter.default)
                for parameter in inspect.signature(member).parameters.values()
            ]
            for name, member in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    expected = interface(RetrievalClient)
    assert interface(RestClient) == expected
    assert interface(GrpcClient) == expected
    assert interface(AsyncGrpcClient) == expected
    shared = set(inspect.signature(RestClient).parameters) - {"trust_env"}
    assert shared <= set(inspect.signature(GrpcClient).parameters)
    assert inspect.signature(GrpcClient) == inspect.signature(AsyncGrpcClient)


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(shortlist.__path__[0], "py.typed").exists()


def test_the_example_works(server: ToyServer) -> None:
    grpc_address, rest_address = server.address("grpc"), server.address("rest")
    best = [name for name, _ in ranking("42") if name not in ("c00", "c01")][:5]
    assert example.both(grpc_address, rest_address) == (best, best)
    users = [f"user-{i}" for i in range(40)]
    with make_client("rest", rest_address) as client:
        assert set(example.canary(client, users).values()) == {1, 2}
        assert 0 < example.comedies(client) < 1
        assert example.session(client, [("c01", 60.0), ("gone", 5.0)], "mobile") == 1
        assert example.half(client, [2.0]) == [3.0]
    answers = asyncio.run(example.concurrently(grpc_address, users))
    assert answers == [tuple(name for name, _ in ranking(user)[:3]) for user in users]


# --- thinness ---------------------------------------------------------------------


def _fresh(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_loads_neither_transport() -> None:
    loaded = _fresh("import sys, shortlist.clients; print(' '.join(sys.modules))").split()
    assert not {"grpc", "urllib3", "google.protobuf", "numpy", "tensorflow"} & set(loaded)


HEAVY = "{'tensorflow', 'tensorflow_serving', 'keras', 'tf_keras', 'scann', 'numpy', 'pandas'}"


@pytest.mark.parametrize(("kind", "other"), [("GrpcClient", "urllib3"), ("RestClient", "grpc")])
def test_a_query_loads_no_tensorflow_no_numpy_and_not_the_other_transport(
    server: ToyServer, kind: str, other: str
) -> None:
    address = server.address("rest" if kind == "RestClient" else "grpc")
    code = f"""
import sys
from shortlist.clients import {kind}
with {kind}({address!r}) as client:
    client.retrieve(["42"])
    client.predict({{"x": [1.0]}}, signature="half_plus_two")
assert not {HEAVY} & set(sys.modules), {HEAVY} & set(sys.modules)
assert {other!r} not in sys.modules
with open("/proc/self/status") as file:
    print(next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM")))
"""
    assert int(_fresh(code)) <= 60  # megabytes


def test_help_loads_none_of_them() -> None:
    for verb in ("query", "status", "predict", "bench"):
        code = f"""
import contextlib, io, sys
from shortlist.clients.cli.main import main
with contextlib.redirect_stdout(io.StringIO()) as out:
    assert main([{verb!r}, "--help"]) == 0
assert "example:" in out.getvalue()
assert not ({HEAVY} | {{"grpc", "urllib3"}}) & set(sys.modules)
"""
        _fresh(code)
