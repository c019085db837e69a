"""Serve a model repository for a moment, and ask it over REST and gRPC."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from shortlist import Filter, GrpcClient, RestClient
from shortlist.serving.servers.options import claim_port

__all__ = ["ask"]


def ask(
    repository: Path, servable: str, users: Sequence[str], allowed: Mapping[str, Sequence[str]]
) -> None:
    """Print the best candidates of some users that have one of the allowed values."""
    ports = claim_port(0, option="--port"), claim_port(0, option="--rest-port")
    flags = ["--port", str(ports[0]), "--rest-port", str(ports[1])]
    command = [sys.executable, "-m", "shortlist", "serve", "--repository", str(repository), *flags]
    with subprocess.Popen(command) as server:
        try:
            for client in (
                GrpcClient(f"127.0.0.1:{ports[0]}", model=servable),
                RestClient(f"127.0.0.1:{ports[1]}", model=servable),
            ):
                with client:
                    client.wait_until_available(timeout=120)
                    answers = client.retrieve(users, k=5, filter=Filter(any=allowed))
                for user, answer in zip(users, answers, strict=True):
                    print(f"{type(client).__name__} {user}: {', '.join(answer.candidate_ids)}")
        finally:
            server.terminate()
