"""Options that the verbs of rollouts share, and what they mean."""

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from shortlist.clients import contract
from shortlist.clients.cli.connection import security
from shortlist.serving.errors import RolloutError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import CONFIG_FILE
from shortlist.serving.rollout.apply import ApplyOptions
from shortlist.serving.rollout.config import ConfigFile
from shortlist.serving.rollout.fleet import Fleet
from shortlist.serving.rollout.steps import StepOptions

__all__ = ["apply_options", "config_path", "opened_fleet", "servables"]


def config_path(args: argparse.Namespace) -> Path:
    """The configuration file that the options name."""
    if args.config is not None:
        return Path(args.config)
    return Path(args.repository) / CONFIG_FILE


@contextmanager
def opened_fleet(args: argparse.Namespace) -> Iterator[Fleet]:
    """The servers that the options name; their connections end with the context."""
    # grpc takes a while to import: only once a verb really runs.
    from shortlist.serving.rollout.replica import GrpcServer

    addresses = args.address or [f"{contract.DEFAULT_HOST}:{contract.DEFAULT_GRPC_PORT}"]
    repeated = {address for address in addresses if addresses.count(address) > 1}
    if repeated:
        raise ValueError(f"--address {min(repeated)} is given twice")
    with ExitStack() as stack:
        servers = tuple(
            stack.enter_context(
                GrpcServer(address, reload_timeout=args.timeout, security=security(args))
            )
            for address in addresses
        )
        yield Fleet(
            repository=ModelRepository(Path(args.repository)),
            servers=servers,
            config_file=ConfigFile(config_path(args)),
            polled=args.polled,
        )


def servables(args: argparse.Namespace, fleet: Fleet, *, version: int | None = None) -> list[str]:
    """Model names that a verb is for: those named, or all that the servers are given.

    Args:
        args: Parsed options.
        fleet: Where.
        version: Only models that have this version.

    Raises:
        RolloutError: There is none.
    """
    if args.servable:
        return list(dict.fromkeys(args.servable))
    # By name: in a container the base paths may be others than here.
    models = fleet.repository.models()
    configured = [
        model.name
        for model in fleet.config_file.read().model_config_list.config
        if model.name in models and Path(model.base_path).name == model.name
    ]
    found = [
        name for name in configured if version is None or version in fleet.repository.versions(name)
    ]
    if not found:
        if configured and version is not None:
            there = {name: fleet.repository.versions(name) for name in configured}
            raise RolloutError(
                f"no model that the servers are given has version {version}; there are: "
                + "; ".join(f"{name} {', '.join(map(str, all_))}" for name, all_ in there.items())
            )
        raise RolloutError(
            f"{fleet.config_file.path} lists no model of {fleet.repository.root}; name one: "
            "--servable NAME"
        )
    return found


def apply_options(args: argparse.Namespace) -> ApplyOptions:
    """How the options say that a rollout is carried out."""
    return ApplyOptions(
        step=StepOptions(timeout=args.timeout, poll_interval=args.poll_interval),
        skip_unreachable=args.skip_unreachable,
        why=args.why,
    )
