"""The `shortlist` command: one parser, to which each package adds its verbs."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence

from shortlist.clients.cli.interrupts import interruptible
from shortlist.clients.cli.output import notice
from shortlist.clients.cli.parser import command_modules
from shortlist.clients.cli.terminal import TERMINAL
from shortlist.clients.cli.versions import ShowVersions
from shortlist.clients.errors import ShortlistError

__all__ = ["build_parser", "main"]

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command.

    The packages' `add_commands` come from entry points, so that `clients` need not know which
    packages add verbs. None of them imports TensorFlow.
    """
    parser = argparse.ArgumentParser(
        prog="shortlist",
        description="Train, publish, serve and query two-tower retrieval models.",
        epilog="example:\n  shortlist demo --data sample",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action=ShowVersions, nargs=0, help="show versions of what is installed"
    )
    parser.add_argument("--debug", action="store_true", help="log everything and show tracebacks")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", dest="verb", required=True)
    for module in command_modules():
        module.add_commands(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 on success, 1 on an expected failure, 2 on wrong usage, 130 after Ctrl-C.
    """
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as exc:  # argparse has printed the reason
        return exc.code if isinstance(exc.code, int) else 2
    restore_logging = _log_to_stderr(logging.DEBUG if args.debug else logging.WARNING)
    try:
        with TERMINAL.session(quiet=getattr(args, "quiet", False)), interruptible():
            run: Callable[[argparse.Namespace], int] = args.run
            return run(args)
    except BrokenPipeError:
        # The reader (`| head`) has closed the pipe; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ShortlistError, ValueError, OSError) as exc:
        log.debug("the command failed", exc_info=True)
        notice(f"error: {exc}")
        return 1
    except KeyboardInterrupt:
        notice("interrupted")
        return 130
    finally:
        restore_logging()


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        notice(self.format(record))


def _log_to_stderr(level: int) -> Callable[[], None]:
    """Send our packages' log to stderr; return a function that restores the loggers."""
    handler = _Handler()
    logger = logging.getLogger("shortlist")
    before = logger.handlers, logger.level, logger.propagate
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level)

    def restore() -> None:
        logger.handlers, old_level, logger.propagate = before
        logger.setLevel(old_level)

    return restore


if __name__ == "__main__":
    sys.exit(main())
