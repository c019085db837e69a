import http.server
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest

from shortlist.clients import Limits, RetryPolicy, Tls
from shortlist.clients.errors import ServingError, Unavailable
from tests.unit.clients.conftest import make_client, secured
from tests.unit.clients.toys import ToyServer

ONCE = RetryPolicy(max_attempts=1)


def test_headers_are_sent_with_every_call(transport: str, server: ToyServer) -> None:
    headers = {"Authorization": "Bearer token", "X-Team": "search"}
    with make_client(transport, server.address(transport), headers=headers) as client:
        client.retrieve(["42"])
        client.status()
    assert [call.headers["authorization"] for call in server.calls] == ["Bearer token"] * 2
    assert server.calls[0].headers["x-team"] == "search"


def test_a_function_gives_fresh_headers(transport: str, server: ToyServer) -> None:
    tokens = iter(["one", "two"])
    with make_client(
        transport, server.address(transport), headers=lambda: {"authorization": next(tokens)}
    ) as client:
        client.retrieve(["42"])
        client.retrieve(["42"])
    assert [call.headers["authorization"] for call in server.calls] == ["one", "two"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"address": []}, "at least one address"),
        ({"address": ""}, "an address looks like"),
        ({"address": "a b:8500"}, "an address looks like"),
        ({"timeout": 0}, "timeout must be a positive"),
        ({"timeout": float("nan")}, "timeout must be a number"),
        ({"model": ""}, "model must be"),
        ({"headers": {"a": 5}}, "header 'a' must be a string, got int"),
    ],
)
def test_wrong_options_are_refused_at_once(
    transport: str, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        make_client(transport, **{"address": "127.0.0.1:1", **options})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_in_flight", 0),
        ("batch_size", 0),
        ("parallel", 1.5),
        ("max_connections", -1),
        ("keepalive", 0),
    ],
)
def test_wrong_limits_are_refused_at_once(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        Limits(**{name: value})


@pytest.mark.parametrize("address", ["ftp://host", "http://", "http:///path"])
def test_rest_refuses_other_urls(address: str) -> None:
    with pytest.raises(ValueError, match="an address looks like"):
        make_client("rest", address)


def test_a_path_before_the_api_is_kept(server: ToyServer) -> None:
    # A reverse proxy may serve the API below a path; the fake knows no such path.
    with (
        make_client("rest", f"http://{server.address('rest')}/models/", retry=ONCE) as client,
        pytest.raises(ServingError),
    ):
        client.status()
    with make_client("rest", f"http://{server.address('rest')}/") as client:
        assert client.status().available == [2, 1]


def test_a_closed_client_says_so(transport: str, server: ToyServer) -> None:
    client = make_client(transport, server.address(transport))
    client.retrieve(["42"])
    client.close()
    client.close()
    if transport != "aio":
        with pytest.raises(ValueError, match="the client is closed"):
            client.retrieve(["42"])


def test_dns_targets_work(server: ToyServer) -> None:
    for kind in ("grpc", "aio"):
        with make_client(kind, f"dns:///localhost:{server.port('grpc')}") as client:
            assert len(client.retrieve(["42"])[0]) == 10


def test_rest_uses_the_environments_proxy_and_netrc_only_if_asked(
    server: ToyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Proxy(http.server.BaseHTTPRequestHandler):
        asked: ClassVar[list[tuple[str, str | None]]] = []

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

        def do_GET(self) -> None:
            self.asked.append((self.path, self.headers["Authorization"]))
            self.send_error(503)

    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    for name in ("HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.02,))
        thread.start()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_address[1]}")
        with (
            make_client("rest", server.address("rest"), trust_env=True, retry=ONCE) as client,
            pytest.raises(Unavailable),
        ):
            client.status()
        with make_client("rest", server.address("rest")) as client:
            client.status()
        proxy.shutdown()
        thread.join()
    url = f"http://{server.address('rest')}/v1/models/retrieval_brute_force"
    assert Proxy.asked == [(url, "Basic bWU6c2VjcmV0")]
    assert server.operations() == ["status"]


# --- TLS ------------------------------------------------------------------------


def test_a_custom_authority_is_trusted(transport: str, certificates: Path) -> None:
    with (
        secured(transport, certificates, mutual=False) as address,
        make_client(transport, address, tls=Tls(ca=certificates / "ca.pem")) as client,
    ):
        assert len(client.retrieve(["42"])[0]) == 10


def test_an_unknown_authority_is_refused(transport: str, certificates: Path) -> None:
    with (
        secured(transport, certificates, mutual=False) as address,
        make_client(transport, address, tls=True, retry=ONCE) as client,
        pytest.raises(Unavailable, match=r"(?i)certificate|handshake|ssl"),
    ):
        client.retrieve(["42"])


def test_the_client_shows_its_certificate(transport: str, certificates: Path) -> None:
    own = Tls(
        ca=certificates / "ca.pem",
        certificate=certificates / "client.pem",
        private_key=certificates / "client.key",
    )
    with secured(transport, certificates, mutual=True) as address:
        with make_client(transport, address, tls=own) as client:
            assert len(client.retrieve(["42"])[0]) == 10
        with (
            make_client(
                transport, address, tls=Tls(ca=certificates / "ca.pem"), retry=ONCE
            ) as client,
            pytest.raises(Unavailable),
        ):
            client.retrieve(["42"])


def test_wrong_files_are_refused_at_once(certificates: Path) -> None:
    pair = {"certificate": certificates / "client.pem", "private_key": certificates / "server.key"}
    with pytest.raises(ValueError, match="ca: no file"):
        Tls(ca="/nowhere.pem")
    with pytest.raises(ValueError, match="both certificate and private_key"):
        Tls(certificate=certificates / "client.pem")
    with pytest.raises(ValueError, match=r"ca: no PEM certificates in .*client\.key"):
        Tls(ca=certificates / "client.key")
    with pytest.raises(ValueError, match=r"are not a PEM certificate and its key.*mismatch"):
        Tls(**pair)
