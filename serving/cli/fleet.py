"""The servers and models that the options of rollout verbs name."""

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
from shortlist.serving.rollout.replica import ReplicaClient
from shortlist.serving.rollout.shards import (
    ConfigFiles,
    ShardedFleet,
    fleet_of,
    rollout_name,
)
from shortlist.serving.rollout.steps import StepOptions

__all__ = ["apply_options", "config_path", "fleet_for", "mover", "opened_fleet", "servables"]


def config_path(args: argparse.Namespace) -> Path:
    """Return the configuration file that the options name."""
    return config_paths(args)[0]


def config_paths(args: argparse.Namespace) -> list[Path]:
    """Return the configuration files that the options name; several for servers of shards."""
    named = args.config if isinstance(args.config, list) else [args.config]
    return [path for path in named if path is not None] or [args.repository / CONFIG_FILE]


@contextmanager
def opened_fleet(args: argparse.Namespace) -> Iterator[Fleet]:
    """Connect to the servers that the options name, for the duration of the context."""
    addresses = args.address or [contract.DEFAULT_GRPC_ADDRESS]
    repeated = {address for address in addresses if addresses.count(address) > 1}
    if repeated:
        raise ValueError(f"--address {min(repeated)} appears twice")
    with ExitStack() as stack:
        servers = tuple(
            stack.enter_context(
                ReplicaClient(address, reload_timeout=args.timeout, security=security(args))
            )
            for address in addresses
        )
        repository = ModelRepository(args.repository)
        files = [ConfigFile(path) for path in config_paths(args)]
        yield Fleet(
            repository=repository,
            servers=servers,
            config_file=files[0] if len(files) == 1 else ConfigFiles(files, repository),
            polled=args.polled,
        )


def fleet_for(args: argparse.Namespace, fleet: Fleet, name: str) -> Fleet:
    """Return the fleet in which a model of `servables` is one, also if it is sharded."""
    return fleet_of(fleet, name, [ConfigFile(path) for path in config_paths(args)])


def mover(args: argparse.Namespace, fleet: Fleet, name: str) -> Fleet:
    """Return the fleet that rolls a model out.

    Raises:
        RolloutError: The model is not sharded, and there are several configuration files.
    """
    moving = fleet_for(args, fleet, name)
    if not isinstance(moving, ShardedFleet) and len(config_paths(args)) > 1:
        raise RolloutError(
            f"{name!r} is not sharded, and several --config are for servers of shards; give the "
            "file of its servers, or choose a sharded model: --servable NAME"
        )
    return moving


def servables(args: argparse.Namespace, fleet: Fleet, *, version: int | None = None) -> list[str]:
    """Return the models of a verb: those named, or all in the servers' configuration.

    The shards of a model count as one, because they roll out together.

    Args:
        args: Parsed options.
        fleet: Servers and repository.
        version: Version that the models must have.

    Raises:
        RolloutError: There is none, or the configuration file lists no model at all.
    """
    models = fleet.repository.models()
    if args.servable:
        return list(dict.fromkeys(rollout_name(models, name) for name in args.servable))
    if not fleet.config_file.read().model_config_list.config:
        fleet.require_listed(fleet.known_models())
    # By name: base paths in a container may differ from ours.
    configured = [
        rollout_name(models, model.name)
        for model in fleet.config_file.read().model_config_list.config
        if model.name in models and Path(model.base_path).name == model.name
    ]
    if not configured:
        raise RolloutError(
            f"{fleet.config_file.path} lists no model of {fleet.repository.root}; name one: "
            "--servable NAME"
        )
    versions = {name: fleet_for(args, fleet, name).repository.versions(name) for name in configured}
    names = [name for name in versions if version is None or version in versions[name]]
    if not names:
        raise RolloutError(
            f"no model in the servers' configuration has version {version}; available: "
            + "; ".join(f"{name} {', '.join(map(str, all_))}" for name, all_ in versions.items())
        )
    return names


def apply_options(args: argparse.Namespace) -> ApplyOptions:
    """Return how to carry out a rollout."""
    return ApplyOptions(
        step=StepOptions(timeout=args.timeout, poll_interval=args.poll_interval),
        skip_unreachable=args.skip_unreachable,
        why=args.why,
    )
