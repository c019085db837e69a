"""Parsers of the verbs that run servers."""

import argparse
from pathlib import Path

from shortlist.clients import contract
from shortlist.clients.cli.connection import add_client_arguments
from shortlist.clients.cli.parser import Parsers, add_parser
from shortlist.serving.servers.kinds import ServerKind

__all__ = ["add_repository", "add_server_verbs"]

_CLI = "shortlist.serving.cli"


def add_server_verbs(verbs: Parsers) -> None:
    """Add `serve`, `ui`, `stack`, `docker` and `doctor`."""
    _add_serve(verbs)
    _add_ui(verbs)
    _add_stack(verbs)
    _add_docker(verbs)
    _add_doctor(verbs)


def add_repository(parser: argparse.ArgumentParser) -> None:
    """Add the option `--repository`."""
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("models"),
        metavar="DIR",
        help="model repository (default: %(default)s)",
    )


def _add_serve(verbs: Parsers) -> None:
    parser = add_parser(
        verbs,
        "serve",
        "Serve a model repository over REST and gRPC.",
        details="Serves every servable until it is stopped: with the embedded server, in a "
        "TensorFlow Serving container, or with a tensorflow_model_server binary. TensorFlow "
        "Serving's own flags may follow after --.",
        example="shortlist serve --repository models --port 8500 --rest-port 8501",
        run=f"{_CLI}.serve:serve",
    )
    add_repository(parser)
    parser.add_argument(
        "--server",
        default=ServerKind.EMBEDDED.value,
        choices=[kind.value for kind in ServerKind],
        help="embedded: in this Python, ScaNN included; docker: the stock image; binary: "
        "tensorflow_model_server on PATH (default: %(default)s)",
    )
    parser.add_argument(
        "--servable",
        action="append",
        metavar="NAME",
        help="model to serve, such as retrieval_ivf; repeatable (default: all)",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="model_config_file to write and start from, for servers that serve different models "
        "of a repository (default: one in the repository)",
    )
    for option, api, port in (
        ("--port", "gRPC", contract.DEFAULT_GRPC_PORT),
        ("--rest-port", "REST", contract.DEFAULT_REST_PORT),
    ):
        parser.add_argument(
            option,
            type=int,
            default=port,
            help=f"{api} port on loopback, 0 for any free one (default: %(default)s)",
        )
    parser.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="startup timeout in seconds (default: %(default)g)",
    )
    parser.add_argument(
        "--log-file", metavar="FILE", help="file for the server's output (default: stderr)"
    )
    parser.add_argument("--image", metavar="IMAGE", help="container image for --server docker")
    parser.add_argument(
        "flags", nargs="*", metavar="-- FLAGS", help="further flags of TensorFlow Serving"
    )
    parser.add_argument("--ui", action="store_true", help="serve a page to look at answers, too")
    parser.add_argument(
        "--ui-port",
        type=int,
        default=contract.DEFAULT_UI_PORT,
        help="port of the page on loopback, 0 for any free one (default: %(default)s)",
    )
    _add_request_log(parser)


def _add_ui(verbs: Parsers) -> None:
    parser = add_parser(
        verbs,
        "ui",
        "Look at answers, versions and rollouts in a browser.",
        details="Serves a page until it is stopped. The page asks a running server, such as that "
        "of `shortlist serve`, and reads the model repository. It changes nothing.",
        example="shortlist ui --repository models --open",
        run="shortlist.serving.ui.command:ui",
    )
    add_repository(parser)
    parser.add_argument(
        "--servable",
        action="append",
        metavar="NAME",
        help="model to show, such as retrieval_ivf; repeatable (default: all of the repository)",
    )
    parser.add_argument(
        "--config",
        type=Path,
        action="append",
        metavar="FILE",
        help="model_config_file of the servers (default: the one that `shortlist serve` writes)",
    )
    parser.add_argument(
        "--host",
        default=contract.DEFAULT_HOST,
        help="address to bind; there is no login (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=contract.DEFAULT_UI_PORT,
        help="port of the page, 0 for any free one (default: %(default)s)",
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    add_client_arguments(parser)
    parser.set_defaults(transport="grpc")


def _add_stack(verbs: Parsers) -> None:
    stack = add_parser(
        verbs,
        "stack",
        "Run TensorFlow Serving and its companions in containers.",
        details="Needs Docker with Compose; `shortlist docker init` writes the files that describe "
        "the containers.",
        example="shortlist stack up --repository models",
    )
    parts = stack.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    up = _add_stack_action(parts, "up", "Start the containers and wait until all models serve.")
    up.add_argument(
        "--timeout",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="startup timeout in seconds (default: %(default)g)",
    )
    _add_stack_action(parts, "down", "Stop and remove the containers.")
    logs = _add_stack_action(parts, "logs", "Show the output of the containers.")
    logs.add_argument("--follow", action="store_true", help="follow log output")
    publish = _add_stack_action(
        parts,
        "publish",
        "Train, run the gates and publish in a container.",
        details="Flags of `shortlist export` may follow after --.",
        flags=" --data sample -- --epochs 3",
    )
    publish.add_argument(
        "--data",
        default="sample",
        metavar="SOURCE",
        help="training data, as for `shortlist export` (default: %(default)s)",
    )
    publish.add_argument(
        "flags", nargs="*", metavar="-- FLAGS", help="further flags of `shortlist export`"
    )


def _add_stack_action(
    parts: Parsers, name: str, summary: str, *, details: str = "", flags: str = ""
) -> argparse.ArgumentParser:
    parser = add_parser(
        parts,
        name,
        summary,
        details=details,
        example=f"shortlist stack {name} --repository models{flags}",
        run=f"{_CLI}.stack:{name}",
        json=False,
    )
    add_repository(parser)
    parser.add_argument(
        "--profiles",
        default="",
        metavar="LIST",
        help="comma-separated additions to the stock server: scann, sharded, monitoring, tls",
    )
    parser.add_argument(
        "--override",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="Compose file that overrides compose.yaml; repeatable",
    )
    parser.add_argument(
        "--docker",
        type=Path,
        metavar="DIR",
        help="folder of `shortlist docker init` (default: the files that come with Shortlist)",
    )
    return parser


def _add_docker(verbs: Parsers) -> None:
    docker = add_parser(
        verbs,
        "docker",
        "Write the files that run Shortlist in containers.",
        example="shortlist docker init docker",
    )
    parts = docker.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    init = add_parser(
        parts,
        "init",
        "Write the Compose file, server configuration, proxy, monitoring and Kubernetes files.",
        details="`shortlist stack --docker DIR` runs them. Files that are there with other "
        "contents are kept unless --force is given.",
        example="shortlist docker init docker",
        run=f"{_CLI}.docker:init",
    )
    init.add_argument("folder", type=Path, metavar="DIR", help="folder, created if missing")
    init.add_argument("--force", action="store_true", help="replace files with other contents")


def _add_doctor(verbs: Parsers) -> None:
    parser = add_parser(
        verbs,
        "doctor",
        "Check this machine and its installation.",
        details="Each line is ok, a warning (something is slower or cannot be done here) or a "
        "problem, with what to do. The status is 1 if there is a problem. The output holds no "
        "secrets: paste it into a bug report.",
        example="shortlist doctor --repository models",
        run=f"{_CLI}.doctor:doctor",
    )
    parser.add_argument(
        "--repository",
        type=Path,
        metavar="DIR",
        help="model repository to check (default: models, if it exists)",
    )
    parser.add_argument("--quick", action="store_true", help="do not load TensorFlow")


def _add_request_log(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("request log, with --server embedded")
    group.add_argument(
        "--request-log",
        type=Path,
        metavar="DIR",
        help="folder for a log of requests and answers; kept in the configuration for later "
        "starts and rollouts",
    )
    group.add_argument(
        "--request-log-rate",
        type=float,
        default=1.0,
        metavar="RATE",
        help="share of the requests to log (default: %(default)g)",
    )
    group.add_argument(
        "--no-request-log",
        action="store_true",
        help="end the logs in the configuration of an earlier start",
    )
