"""The `shortlist` command: one parser, to which each package adds its verbs."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points, version

from clients.errors import ServingError

__all__ = ["CommandError", "build_parser", "main"]

COMMANDS_GROUP = "shortlist.commands"

AddCommands = Callable[["argparse._SubParsersAction[argparse.ArgumentParser]"], None]


class CommandError(Exception):
    """An expected failure of a command: one line for the user, exit status 1."""


def build_parser() -> argparse.ArgumentParser:
    """Parser of the whole command.

    The packages' `add_commands` come from entry points, so that `clients` need not
    know who else adds verbs. None of them imports TensorFlow.
    """
    parser = argparse.ArgumentParser(
        prog="shortlist",
        description="Train, publish, serve and query two-tower retrieval models.",
        epilog="Try it without any data of your own: shortlist demo --data sample",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"shortlist {version('shortlist')}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", dest="verb", required=True)
    for entry in sorted(entry_points(group=COMMANDS_GROUP), key=lambda entry: entry.name):
        add_commands: AddCommands = entry.load()
        add_commands(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0 on success, 1 on an expected failure, 2 on wrong usage, 130 after Ctrl-C.
    """
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as exc:  # argparse has printed the reason
        return exc.code if isinstance(exc.code, int) else 2
    try:
        run: Callable[[argparse.Namespace], int] = args.run
        return run(args)
    except (CommandError, ServingError, ValueError) as exc:
        print(f"shortlist: error: {exc}", file=sys.stderr)  # noqa: T201
        return 1
    except BrokenPipeError:
        # The reader (`| head`) is gone; keep the interpreter's exit from complaining.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("shortlist: interrupted", file=sys.stderr)  # noqa: T201
        return 130


if __name__ == "__main__":
    sys.exit(main())
