"""Verbs that `serving` adds to the `shortlist` command."""

import argparse

from shortlist.clients import contract
from shortlist.serving.bench import arguments
from shortlist.serving.cli import repository as repository_cli
from shortlist.serving.cli import rollout as rollout_cli

__all__ = ["add_benches", "add_commands"]

# Flags that say what to serve; with them the server needs no repository from us.
RAW_FLAGS = ("--model_config_file", "--model_base_path")


def add_commands(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds this package's verbs; imports nothing heavy."""
    _add_serve(verbs)
    repository_cli.add_commands(verbs)
    rollout_cli.add_commands(verbs)


def add_benches(benches: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `bench server`."""
    parser = benches.add_parser(
        "server",
        help="measure model servers over REST and gRPC",
        description=arguments.DESCRIPTION,
        epilog=arguments.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_arguments(parser)

    def run(args: argparse.Namespace) -> int:
        from shortlist.serving.bench import command as cli

        return cli.run(args)

    parser.set_defaults(run=run)


def _add_serve(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    serve = verbs.add_parser(
        "serve",
        help="serve a model repository over REST and gRPC",
        description="Serves every servable of a model repository until it is stopped: with the "
        "embedded server, in a TensorFlow Serving container, or with a tensorflow_model_server "
        "binary. TensorFlow Serving's own flags may follow after --.",
        epilog="example:\n  shortlist serve --repository models --port 8500 --rest-port 8501",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument(
        "--repository",
        default="models",
        metavar="DIR",
        help="model repository, as `shortlist export` writes it (default: models)",
    )
    serve.add_argument(
        "--server",
        default="embedded",
        choices=("embedded", "docker", "binary"),
        help="embedded: in this Python, ScaNN included; docker: the stock image; binary: "
        "tensorflow_model_server on PATH (default: embedded)",
    )
    serve.add_argument(
        "--servable",
        action="append",
        metavar="NAME",
        help="serve only this model, such as retrieval_ivf; may be given again (default: all)",
    )
    serve.add_argument(
        "--port",
        type=int,
        default=contract.DEFAULT_GRPC_PORT,
        help=f"gRPC port on loopback, 0 for any free one (default: {contract.DEFAULT_GRPC_PORT})",
    )
    serve.add_argument(
        "--rest-port",
        type=int,
        default=contract.DEFAULT_REST_PORT,
        help=f"REST port on loopback, 0 for any free one (default: {contract.DEFAULT_REST_PORT})",
    )
    serve.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        help="seconds in which all servables must be AVAILABLE (default: 300)",
    )
    serve.add_argument(
        "--log-file", metavar="FILE", help="write the server's output there, not to stderr"
    )
    serve.add_argument("--image", metavar="IMAGE", help="container image for --server docker")
    serve.add_argument(
        "--json", action="store_true", help="print what is served as one line of JSON"
    )
    serve.add_argument(
        "flags", nargs="*", metavar="-- FLAGS", help="more of TensorFlow Serving's own flags"
    )
    serve.set_defaults(run=run_serve)


def run_serve(args: argparse.Namespace) -> int:
    """Runs `shortlist serve`."""
    from shortlist.serving.servers import serve

    if any(flag.startswith(RAW_FLAGS) for flag in args.flags):
        return serve.replace_process(args.server, args.flags)
    return serve.serve_until_stopped(serve.request_from(args))
