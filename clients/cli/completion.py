"""`shortlist completion`: scripts that complete verbs, options and files in a shell."""

import argparse
import re
from collections.abc import Iterator

import shtab

from shortlist.clients.cli.main import build_parser
from shortlist.clients.cli.output import write

__all__ = ["completion"]

# By metavar; what else an option takes has no files to offer.
_FOLDER = re.compile(r"(\w+_)?DIR(_OR_URL)?")
_FILE = re.compile(r"(all\|)?(FILE(\..+)?|PATH|LOG|SOURCE)")


def completion(args: argparse.Namespace) -> int:
    """Print the script of a shell."""
    parser = build_parser()
    for action in _actions(parser):
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        if _FOLDER.fullmatch(metavar):
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]  # read by shtab
        elif _FILE.fullmatch(metavar):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    write(shtab.complete(parser, shell=args.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                yield from _actions(part)
