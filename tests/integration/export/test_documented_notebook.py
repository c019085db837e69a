"""From notebook to production: the Python and the commands of docs/plain_tfrs.md, as written.

Only the data (smaller), the addresses (free ports) and `serve` (as a context) differ.
"""

from pathlib import Path

import pytest

from shortlist.clients import GrpcClient
from shortlist.clients.cli.main import main
from shortlist.serving.servers.serve import ServeRequest, running
from tests.support.pages import blocks, commands
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PAGE = ROOT / "docs" / "plain_tfrs.md"


def write_ratings(folder: Path) -> None:
    """Write 60 users' ratings of 80 titles, in the form of a MovieLens release."""
    folder.mkdir()
    movies = "".join(f'{movie},"Movie, the {movie}th (1999)",Drama\n' for movie in range(80))
    (folder / "movies.csv").write_text(f"movieId,title,genres\n{movies}")
    ratings = "".join(
        f"{user},{(user * 7 + step * step) % 80},4.0,{step}\n"
        for user in range(1, 61)
        for step in range(12)
    )
    (folder / "ratings.csv").write_text(f"userId,movieId,rating,timestamp\n{ratings}")


def test_a_notebook_gets_into_production(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_ratings(tmp_path / "ml-latest-small")
    notebook, client_code = (block.text for block in blocks(PAGE, "python"))
    exec(compile(notebook, "docs/plain_tfrs.md", "exec"), {"__name__": "notebook"})
    publish, serve, *others = (
        command.words[1:] for block in blocks(PAGE, "console") for command in commands(block.text)
    )
    assert main(publish) == 0
    assert "serving_default: input_1 -> output_2, output_1" in capsys.readouterr().err
    assert serve[0] == "serve"
    with running(ServeRequest(repository=Path("models"))) as (server, _):
        for command in others:
            address = server.rest_address if "rest" in command else server.grpc_address
            remote = command[0] in ("query", "promote", "canary", "rollback")
            assert main([*command, *(["--address", address] if remote else [])]) == 0, command
            out = capsys.readouterr().out
            if command[0] == "query":
                assert "Movie, the " in out
                assert out.count("(1999)") == 3
            if command[0] == "diff":
                assert "overlap@10" in out
        exec(client_code.replace("127.0.0.1:8500", server.grpc_address), {})
        assert capsys.readouterr().out.count("Movie, the ") == 3
        with GrpcClient(server.grpc_address, model="movies") as client:
            assert client.retrieve(["42"], label="stable")[0].version == 1  # rolled back
