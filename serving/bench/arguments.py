"""Options of `shortlist bench server`; imports nothing heavy."""

import argparse
from typing import Final

__all__ = ["DESCRIPTION", "EPILOG", "add_arguments"]

DESCRIPTION: Final = (
    "Measures requests per second and latencies of model servers over REST and gRPC, on "
    "brute-force servables that it makes itself."
)
EPILOG: Final = "example:\n  shortlist bench server --quick"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `bench server` to a parser."""
    parser.add_argument(
        "--server",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="a server to start beside the embedded one; {flags} in COMMAND stands for "
        "TensorFlow Serving's flags: 'real=tensorflow_model_server {flags}'",
    )
    parser.add_argument(
        "--address",
        action="append",
        default=[],
        metavar="NAME=REST,GRPC",
        help="a server that runs already and serves the sample servables (see --repository)",
    )
    parser.add_argument("--no-embedded", action="store_true", help="leave out the embedded server")
    parser.add_argument(
        "--repository",
        metavar="DIR",
        help="keep the sample servables there, for servers of your own or for the next run",
    )
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="time for each row (default: %(default)s)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="the small servable alone, one connection, batch 1, half a second a row",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
