"""Helpers for the parsers of all verbs."""

import argparse
import re
import shutil
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from types import ModuleType
from typing import TypeAlias

from shortlist.clients.errors import ShortlistError

__all__ = ["Parsers", "Verb", "add_parser", "command_modules", "duration", "name_value_pairs"]

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
# Extras of packages that only one verb needs.
_EXTRAS = {"shtab": "completion", "starlette": "ui", "uvicorn": "ui"}

# `argparse` does not export the class.
Parsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_parser(
    parsers: Parsers,
    name: str,
    summary: str,
    *,
    example: str,
    details: str = "",
    run: str | None = None,
    json: bool = True,
) -> argparse.ArgumentParser:
    """Add the parser of a verb.

    Args:
        parsers: Verbs of the command, or parts of a verb.
        name: What the user types.
        summary: One sentence, also shown in the list of verbs.
        example: Command that works when pasted.
        details: More sentences for the verb's own help.
        run: `package.module:function` that runs the verb, imported when it runs; `None` for a
            verb with parts.
        json: Add `--json`.
    """
    width = min(shutil.get_terminal_size().columns - 2, 100)
    parser = parsers.add_parser(
        name,
        help=summary[0].lower() + summary[1:].rstrip("."),
        description=textwrap.fill(f"{summary} {details}".rstrip(), width, break_on_hyphens=False),
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if run is not None:
        if json:
            parser.add_argument("--json", action="store_true", help="print JSON")
        parser.add_argument(
            "--quiet", action="store_true", help="print results, warnings and errors only"
        )
        parser.set_defaults(run=Verb(run))
    return parser


@dataclass(frozen=True)
class Verb:
    """Function of a verb, imported when it is called.

    Attributes:
        function: `package.module:function`.
    """

    function: str

    def __call__(self, args: argparse.Namespace) -> int:
        """Run the verb.

        Raises:
            ShortlistError: A package that it needs is not installed.
        """
        args.began = time.monotonic()  # before the imports, which can take seconds
        module, _, name = self.function.partition(":")
        try:
            run: Callable[[argparse.Namespace], int] = getattr(import_module(module), name)
            return run(args)
        except ModuleNotFoundError as exc:
            if exc.name is None or exc.name.startswith("shortlist"):
                raise
            extras = _EXTRAS.get(exc.name)
            if extras is None:
                # Either distribution of TensorFlow will do, so none is installed over the other.
                extras = "embedded,export" + (",tensorflow" if not find_spec("tensorflow") else "")
            raise ShortlistError(
                f"`shortlist {args.verb}` needs {exc.name}, which is not installed; run: "
                f"pip install 'shortlist[{extras}]'"
            ) from exc


def command_modules() -> list[ModuleType]:
    """Return the modules with the packages' `add_commands`, by the names of their entry points."""
    entries = sorted(entry_points(group="shortlist.commands"), key=lambda entry: entry.name)
    return [import_module(entry.module) for entry in entries]


def duration(text: str) -> float:
    """Return seconds for a length of time: 90, 30s, 15m, 1h, 7d or 2w.

    Raises:
        argparse.ArgumentTypeError: The text is not one, or not above 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not seconds:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a length of time above 0; write 30s, 15m, 1h or 7d"
        )
    return seconds


def name_value_pairs(
    texts: Sequence[str], option: str, *, secret: bool = False
) -> list[tuple[str, str]]:
    """Return the names and values of `NAME=VALUE` texts.

    Args:
        texts: What the user gave.
        option: The option, for messages.
        secret: Do not show a text in a message.

    Raises:
        ShortlistError: A text has no name or no equals sign.
    """
    pairs = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            got = "got one without a name or an equals sign" if secret else f"got {text!r}"
            raise ShortlistError(f"{option} takes NAME=VALUE, {got}")
        pairs.append((name, value))
    return pairs
