"""`shortlist docker`."""

import argparse
import shlex
from collections import Counter

from shortlist.clients.cli.output import write, write_json, write_table
from shortlist.serving.servers.docker_files import COMPOSE_FILE, write_docker_files

__all__ = ["init"]

# By the first part of their path.
_CONTENTS = {
    COMPOSE_FILE: "the containers; every setting is a variable with a default",
    "jobs": "scripts of scheduled jobs: an hourly update",
    "server": "configuration and readiness check of the model servers",
    "proxy": "TLS and a token in front of them",
    "monitoring": "Prometheus, alerts and a Grafana dashboard",
    "kubernetes": "the same for Kubernetes, with variants (`kubectl apply -k`)",
}


def init(args: argparse.Namespace) -> int:
    """Write the files that run Shortlist in containers."""
    files = write_docker_files(args.folder, force=args.force)
    if args.json:
        write_json({"folder": str(args.folder), "files": [str(file) for file in files]})
        return 0
    counts = Counter(file.parts[0] for file in files)
    rows = [["in", "files", "what"]]
    rows += [[name, str(counts[name]), what] for name, what in _CONTENTS.items()]
    write_table(rows, text=(0, 2))
    folder = shlex.quote(str(args.folder))
    write(f"start them with: shortlist stack up --repository models --docker {folder}")
    return 0
