"""`shortlist stack`."""

import argparse

from shortlist.clients.cli.output import notice
from shortlist.serving.servers.stack import Stack

__all__ = ["down", "logs", "publish", "up"]


def up(args: argparse.Namespace) -> int:
    """Start the containers and wait until every model is AVAILABLE."""
    _stack(args).up(timeout=args.timeout)
    notice("up; `shortlist status` shows what is served")
    return 0


def down(args: argparse.Namespace) -> int:
    """Stop and remove the containers."""
    _stack(args).down()
    return 0


def logs(args: argparse.Namespace) -> int:
    """Show the output of the containers."""
    _stack(args).logs(follow=args.follow)
    return 0


def publish(args: argparse.Namespace) -> int:
    """Train, run the gates and publish in a container."""
    _stack(args).publish(args.data, args.flags)
    return 0


def _stack(args: argparse.Namespace) -> Stack:
    profiles = [name for name in args.profiles.split(",") if name]
    return Stack(args.repository, profiles=profiles, overrides=args.override, folder=args.docker)
