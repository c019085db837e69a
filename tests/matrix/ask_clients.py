"""Ask a fake server with the clients alone, in an environment that has nothing but `shortlist`."""

import asyncio
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from shortlist import AsyncGrpcClient
from shortlist.clients.testing import FakeServer

_SHORTLIST = Path(sys.executable).with_name("shortlist")


def main() -> int:
    """Query with the command over both transports, and with the asyncio client."""
    extras = [name for name in ("numpy", "tensorflow", "scipy") if find_spec(name)]
    if extras:
        raise SystemExit(f"not the clients alone: {', '.join(extras)} installed")
    with FakeServer() as server:
        answers = [
            _query("--transport", "rest", "--address", server.rest_address),
            _query("--transport", "grpc", "--address", server.grpc_address),
            asyncio.run(_ask(server.grpc_address)),
        ]
    if len(answers[0]) != 2 or any(answer != answers[0] for answer in answers):
        raise SystemExit(f"different answers: {answers}")
    print(f"Python {sys.version.split()[0]}: help, REST, gRPC and asyncio: {answers[0]}")  # noqa: T201
    return 0


def _query(*options: str) -> list[str]:
    subprocess.run([_SHORTLIST, "query", "--help"], check=True, stdout=subprocess.DEVNULL)
    command = [str(_SHORTLIST), "query", "42", "-k", "2", "--json", *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    (answer,) = json.loads(done.stdout)
    return [candidate["candidate_id"] for candidate in answer["candidates"]]


async def _ask(address: str) -> list[str]:
    async with AsyncGrpcClient(address) as client:
        (answer,) = await client.retrieve(["42"], k=2)
    return list(answer.candidate_ids)


if __name__ == "__main__":
    sys.exit(main())
