"""Code blocks of the documentation."""

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT

__all__ = ["PAGES", "Block", "Command", "blocks", "commands"]

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
)
_FENCE = re.compile(r"^( *)```([\w-]*)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: Word after the fence; empty for none.
        text: The block without its indentation.
        line: Line of the page that it begins on, from 1.
    """

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A command of a console session.

    Attributes:
        words: Words as a shell splits them, up to a redirection, pipe or ampersand.
        file: Name of the file that the output goes to; `None` for none.
        output: Lines that the page shows below it.
    """

    words: list[str]
    file: str | None
    output: list[str]


def blocks(page: Path, *languages: str) -> list[Block]:
    """Return the blocks of a page, all or those of some languages, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        indent, language, body = match.groups()
        if not languages or language in languages:
            lines = (line.removeprefix(indent) for line in body.splitlines(keepends=True))
            found.append(Block(language, "".join(lines), text.count("\n", 0, match.start()) + 1))
    return found


def commands(session: str) -> Iterator[Command]:
    """Yield the commands of a console session: `$ ` begins one, a backslash continues it."""
    lines = session.replace("\\\n", "").splitlines()
    while lines:
        line = lines.pop(0)
        if not line.startswith("$ "):
            continue  # output that follows nothing
        text = line.removeprefix("$ ")
        while (words := _words(text)) is None:
            text += "\n" + lines.pop(0)
        output = list(itertools.takewhile(lambda line: not line.startswith("$ "), lines))
        del lines[: len(output)]
        own = list(itertools.takewhile(lambda word: not re.match(r"\d?[<>|&]", word), words))
        target = words[len(own) : len(own) + 2]
        yield Command(own, target[1] if target[:1] == [">"] else None, output)


def _words(text: str) -> list[str] | None:
    """Return the words of a command; `None` if a quote is open."""
    try:
        return shlex.split(text, comments=True)
    except ValueError:
        return None
