"""`shortlist bench server`: its options, its table, and the quick form against real servers."""

import argparse
import json
import socket
import threading

import pytest

from shortlist.clients.cli.main import build_parser
from shortlist.clients.errors import ShortlistError
from shortlist.serving.bench import command as cli
from shortlist.serving.bench.load import Load, Measurement, measure


def arguments(*texts: str) -> argparse.Namespace:
    return build_parser().parse_args(["bench", "server", *texts])


ROWS: list[cli.Row] = [(1682, "rest", 8, 32)]
ONE = Measurement(requests=3000, requests_per_second=1000.0, p50_ms=0.5, p99_ms=12.25)


def test_table_has_a_line_for_each_row_and_a_column_for_each_server() -> None:
    table = cli._table(ROWS, {"embedded": [ONE], "real": [ONE]})
    head, _, line = table.splitlines()
    assert head.count("req/s") == 2
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["1,682", "rest", "8", "32", *["1,000", "0.50", "12.25"] * 2]


def test_json_names_each_measurement() -> None:
    [document] = cli._documents(ROWS, {"embedded": [ONE]})
    assert document["server"] == "embedded"
    assert (document["candidates"], document["transport"], document["p99_ms"]) == (
        1682,
        "rest",
        12.25,
    )


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["--server", "nonsense"], "--server takes NAME=VALUE, got 'nonsense'"),
        (["--address", "a=127.0.0.1:1"], "--address takes NAME=REST,GRPC"),
        (["--server", "a=/no/such/program {flags}"], "a cannot be started"),
        ([], "nothing to measure"),
    ],
)
def test_wrong_options_are_named(
    texts: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_make_servables", lambda *args: None)
    with pytest.raises(ShortlistError, match=message):
        cli.run(arguments("--quick", "--no-embedded", *texts))


def test_server_that_answers_errors_fails_the_measurement() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nno\r\n ")

        thread = threading.Thread(target=refuse)
        thread.start()
        port = listener.getsockname()[1]
        load = Load(
            transport="rest",
            address=f"127.0.0.1:{port}",
            model="m",
            batch=1,
            connections=1,
            seconds=0.2,
        )
        with pytest.raises(ShortlistError, match="404 Not Found"):
            measure(load)
        thread.join(10)


@pytest.mark.slow
def test_quick_form_measures_the_embedded_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments("--quick", "--json")) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["transport"] for row in rows] == ["rest", "grpc"]
    assert all(row["requests"] > 10 for row in rows)
