"""Text from servers and files cannot steer a terminal, forge lines or repeat secrets."""

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from shortlist.clients._printable import printable, without_secrets
from shortlist.clients.cli.main import main
from shortlist.clients.cli.output import table, write_json
from shortlist.clients.errors import ServingError
from shortlist.clients.testing import FakeModel, FakeServer
from shortlist.serving.servers.output import ServerOutput

# Clear screen, title, C1 CSI, right-to-left override and isolate, line separators, a new line.
EVIL = "a\x1b[2J\x1b]0;x\x07\x9b1m\u202e\u2066\u2028\x85\r\n\x7f\udc80b"
ESCAPED = r"a\u001b[2J\u001b]0;x\u0007\u009b1m\u202e\u2066\u2028\u0085\u000d\u000a\u007f\udc80b"


def test_control_characters_are_escaped_and_letters_kept() -> None:
    assert printable(EVIL) == ESCAPED
    assert printable(EVIL, newlines=True) == ESCAPED.replace(r"\u000a", "\n")
    for text in ("Amélie", "Ⅱ 王家衛", "\u05d0\u200f b", "👩\u200d👩", "a b"):
        assert printable(text) == text


def test_tables_and_json_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    assert table([["ID"], [EVIL]]).splitlines()[1] == ESCAPED
    write_json({"id": EVIL})
    out = capsys.readouterr().out
    assert printable(out, newlines=True) == out
    assert json.loads(out) == {"id": EVIL}


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_query_prints_no_control_characters(
    transport: str, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = EVIL.removesuffix("\udc80b")  # not in UTF-8, so no server can send it
    model = FakeModel(candidates={evil: {}, "c1": {}}, unknown_users=["u"])
    with FakeServer({"retrieval_brute_force": model}) as server:
        address = server.rest_address if transport == "rest" else server.grpc_address
        asked = ["--transport", transport, "--address", address]
        assert main(["query", "u", "-k", "2", *asked]) == 0
        server.fail("INVALID_ARGUMENT", evil)
        assert main(["query", "u", "-k", "2", *asked]) == 1
    shown = capsys.readouterr()
    assert r"a\u001b[2J\u001b]0;x" in shown.out
    assert r"a\u001b[2J\u001b]0;x" in shown.err
    for text in (shown.out, shown.err):
        assert printable(text, newlines=True) == text
    assert len(shown.out.splitlines()) == 3  # a heading and two candidates


def test_status_and_the_log_of_rollouts_are_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"id": 1, "event": "failed", "who": EVIL[:-2], "error": "x\nforged  done"}
    other = {"id": 2, "event": "done", "who": "me\u2028you"}
    log = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in (record, other))
    (tmp_path / ".rollouts.jsonl").write_text(log, encoding="utf-8")
    assert main(["rollout", "log", "--repository", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert len(out.split("\n")) == 3
    assert printable(out, newlines=True) == out
    assert r"me\u2028you" in out  # `splitlines` would have cut its record in two


def test_lines_of_servers_are_escaped_on_their_way_to_the_terminal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    output = ServerOutput(None)
    line = EVIL.replace("\n", "").removesuffix("\udc80b")
    output.follow(io.BytesIO(f"{line}\tx\nnext\n".encode()))
    output.finish()
    err = capfd.readouterr().err
    assert printable(err, newlines=True) == err
    assert err.endswith("\tx\nnext\n")


def test_errors_are_one_line_of_bounded_length() -> None:
    error = ServingError(EVIL + "x" * 10_000, received=EVIL)
    assert str(error).startswith(ESCAPED)
    assert len(str(error)) < 4200
    assert error.received == ESCAPED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("got Bearer s3cret!", "got …!"),
        ("token s3cret is old", "token … is old"),
        ("see http://me:pw@proxy:3128/x", "see http://…@proxy:3128/x"),
        ("see http://proxy/a@b", "see http://proxy/a@b"),
        ("user a@b.example", "user a@b.example"),
    ],
)
def test_secrets_are_left_out(text: str, expected: str) -> None:
    values: list[Any] = ["Bearer s3cret", "a"]  # one letter would blot out words
    assert without_secrets(text, values) == expected


def test_leaving_out_secrets_takes_linear_time() -> None:
    """The text of a server is read outside the call's deadline; it took minutes before."""
    started = time.perf_counter()
    assert without_secrets("@ " + "/" * 1_000_000, ["Bearer s3cret"]).startswith("@ //")
    assert time.perf_counter() - started < 2
