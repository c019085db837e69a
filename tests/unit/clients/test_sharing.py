"""One client in many threads, in forked children, and after ten thousand calls."""

import gc
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shortlist.clients import Limits, RetryPolicy
from shortlist.clients.errors import ServingError
from tests.unit.clients.chaos import Chaos, proxy
from tests.unit.clients.conftest import make_client
from tests.unit.clients.toys import ToyServer, ranking


def test_threads_share_a_client(client: Any) -> None:
    def ask(number: int) -> bool:
        users = [f"user-{number}", f"other-{number}"]
        return [list(retrieval) for retrieval in client.retrieve(users, k=3)] == [
            ranking(user)[:3] for user in users
        ]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(200)))


FORK = """
import os, sys, time
from shortlist.clients import GrpcClient, Limits, RestClient
kind = {"grpc": GrpcClient, "rest": RestClient}[sys.argv[1]]
client = kind(sys.argv[2], timeout=10, limits=Limits(batch_size=5))
users = [f"u{i}" for i in range(20)]
expected = client.retrieve(users)  # split, so that the parent has threads
child = os.fork()
if child == 0:
    same = client.retrieve(users) == expected
    client.close()
    os._exit(0 if same else 3)
deadline = time.monotonic() + 20
while time.monotonic() < deadline:
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        break
    time.sleep(0.02)
else:
    os.kill(child, 9)
    sys.exit("the child hangs")
assert os.waitstatus_to_exitcode(status) == 0, status
assert client.retrieve(users) == expected  # the parent's connections are whole
client.close()
"""


@pytest.mark.parametrize("kind", ["rest", "grpc"])
def test_a_forked_child_can_use_its_parents_client(kind: str, server: ToyServer) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, kind, server.address(kind)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_closing_frees_sockets_and_threads(transport: str, server: ToyServer) -> None:
    def once() -> None:
        with make_client(
            transport, server.address(transport), limits=Limits(batch_size=2)
        ) as client:
            client.retrieve([f"u{i}" for i in range(8)])

    once()  # libraries keep some permanently
    settled = _settle(0, 0)
    for _ in range(20):
        once()
    sockets, threads = _settle(*settled)
    assert sockets <= settled[0]
    assert threads <= settled[1]


def _counts() -> tuple[int, int]:
    gc.collect()
    sockets = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            sockets += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except FileNotFoundError:
            continue
    # The fake server lives here too, and its pool keeps its threads.
    names = [thread.name for thread in threading.enumerate()]
    return sockets, sum(not name.startswith("ThreadPoolExecutor") for name in names)


def _settle(sockets: int, threads: int) -> tuple[int, int]:
    """Return the counts once they are as low as expected, or after two seconds."""
    deadline = time.monotonic() + 2
    counts = _counts()
    while (counts[0] > sockets or counts[1] > threads) and time.monotonic() < deadline:
        time.sleep(0.05)
        counts = _counts()
    return counts


@pytest.mark.slow
def test_ten_thousand_calls_leak_nothing(transport: str, server: ToyServer) -> None:
    quick = RetryPolicy(initial_backoff=0.001, max_backoff=0.01, budget=1e6, budget_ratio=1)
    chaos = Chaos(seed=3, reset=0.002, truncate=0.002)
    with proxy(server.port(transport), chaos) as behind:
        client = make_client(transport, f"127.0.0.1:{behind}", retry=quick)
        failed = 0
        for number in range(10_000):
            try:
                client.retrieve(["42"], k=1)
            except ServingError:
                failed += 1
            if number == 1000:
                early = _counts()
        late = _counts()
        client.close()
    assert failed < 100
    assert sum(chaos.happened.values()) > 10
    # The fake server and the proxy live in this process too: two sockets and a thread
    # for each connection that is still open.
    assert late[0] <= early[0] + 8
    assert late[1] <= early[1] + 4
