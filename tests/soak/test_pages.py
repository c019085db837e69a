"""The start, tutorials and references of the documentation: their commands and code, as written.

Only the trainings (shorter), the data of `sample` (smaller) and the addresses (free ports) differ.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path

import pytest

from shortlist.clients.cli.main import build_parser
from shortlist.serving.servers.serve import ServeRequest, running
from tests.support.command import environment, run
from tests.support.pages import Block, Command, blocks, commands
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

QUICK = [
    *("--epochs", "1", "--embedding-dim", "8", "--split", "random", "--allow", "quality"),
    *("--sample-users", "100", "--sample-candidates", "200", "--sample-interactions", "3000"),
]


class Walkthrough:
    """Runs pages in one folder, with one server at a time."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._parser = build_parser()
        self._addresses = ("", "")

    def run(self, page: str) -> None:
        found = blocks(ROOT / "docs" / page, "console", "python")
        assert found
        for language, group in groupby(found, key=lambda block: block.language):
            if language == "python":
                self._python(list(group), page)
            else:
                for block in group:
                    for command in commands(block.text):
                        self._command(command)

    def _python(self, group: list[Block], page: str) -> None:
        """Run blocks that follow each other as one program."""
        program = self._local("\n".join(block.text for block in group))
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=self._folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{page}:{group[0].line}: {done.stderr}"

    def _command(self, command: Command) -> None:
        program, *words = command.words
        if program == "curl":
            self._curl(words, command.file)
        elif program == "shortlist" and words[0] == "serve":
            self._stack.close()
            request = ServeRequest(repository=self._folder / "models")
            server, _ = self._stack.enter_context(running(request))
            self._addresses = (server.grpc_address, server.rest_address)
        elif program == "shortlist":
            self._shortlist(words, command)

    def _shortlist(self, words: list[str], command: Command) -> None:
        if words[0] == "export":
            words = [*words, *QUICK]
        elif hasattr(args := self._parser.parse_args(words), "address"):
            rest = getattr(args, "transport", "grpc") == "rest"
            words = [*words, "--address", self._addresses[rest]]
        done = run(*words, cwd=self._folder, timeout=500)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        if command.file is not None:
            (self._folder / command.file).write_text(done.stdout, encoding="utf-8")
        elif command.output:
            self._compare(words[0], command.output, done.stdout)

    def _curl(self, words: list[str], file: str | None) -> None:
        curl = shutil.which("curl")
        if curl is None:
            pytest.skip("no curl")
        done = subprocess.run(
            [curl, *(self._local(word) for word in words)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.startswith(("{", "#"))
        assert '"error":' not in done.stdout or "rate" in done.stdout
        if file is not None:
            (self._folder / file).write_text(done.stdout, encoding="utf-8")

    def _compare(self, verb: str, shown: list[str], out: str) -> None:
        """Compare the shapes of the lines that the page shows with those of the command."""
        lines = [_shape(line) for line in out.splitlines()]
        if verb == "query":
            expected = [line for line in shown if line and not line.startswith("note: ")]
            assert (_shape(expected[0]), len(expected)) == (lines[0], len(lines))
        if verb in ("promote", "canary", "rollback"):
            assert [_shape(line) for line in shown if line] == lines
        if verb == "export":
            assert _shape(shown[0]) == lines[0]
            assert "serve it with" not in shown[-1] or _shape(shown[-1]) == lines[-1]

    def _local(self, text: str) -> str:
        grpc_address, rest_address = self._addresses
        rest_host = rest_address.removeprefix("http://")
        return text.replace("127.0.0.1:8500", grpc_address).replace("127.0.0.1:8501", rest_host)


def _shape(line: str) -> str:
    """Return a line without what differs from run to run."""
    return " ".join(re.sub(r"\d[\d.,]*", "0", line).split())


@contextmanager
def walkthrough(folder: Path) -> Iterator[Walkthrough]:
    with ExitStack() as stack:
        yield Walkthrough(folder, stack)


def test_the_start(tmp_path: Path) -> None:
    with walkthrough(tmp_path) as pages:
        pages.run("start.md")


def test_the_shop(tmp_path: Path) -> None:
    """The tutorials and references that continue the first one share its server."""
    with walkthrough(tmp_path) as pages:
        for name in ("csv_to_canary", "shop", "unknown_users"):
            pages.run(f"tutorials/{name}.md")
        for name in ("rest", "clients"):
            pages.run(f"reference/{name}.md")
        pages.run("updates.md")
