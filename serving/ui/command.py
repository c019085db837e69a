"""`shortlist ui`, and the page next to a server that another command runs."""

import argparse
import socket
import threading
import time
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import uvicorn

from shortlist.clients import GrpcClient, contract
from shortlist.clients.cli.connection import open_client
from shortlist.clients.cli.output import notice, write, write_json
from shortlist.serving.errors import ModelServerError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.rollout.replica import ReplicaClient
from shortlist.serving.ui.app import create_app, is_loopback
from shortlist.serving.ui.site import Site

__all__ = ["page_for", "serving_page", "ui"]

_START_TIMEOUT: Final = 30.0  # seconds


def ui(args: argparse.Namespace) -> int:
    """Run `shortlist ui` until Ctrl-C or SIGTERM."""
    repository = ModelRepository(args.repository)
    if not is_loopback(args.host):
        notice(
            f"warning: the page has no login; whoever reaches {args.host} sees users, candidates "
            "and versions. Without --host it answers this machine alone"
        )
    usual = {"rest": contract.DEFAULT_REST_ADDRESS, "grpc": contract.DEFAULT_GRPC_ADDRESS}
    addresses = args.address or [usual[args.transport]]
    with ExitStack() as stack:
        servers = []
        for address in addresses:
            args.address = [address]
            replica = ReplicaClient(address, client=open_client(args))
            servers.append(stack.enter_context(replica))
        args.address = addresses
        site = Site(
            client=stack.enter_context(open_client(args)),
            servers=servers,
            repository=repository,
            names=tuple(args.servable or ()),
            config=tuple(args.config or ()),
        )
        page = stack.enter_context(serving_page(site, host=args.host, port=args.port))
        if args.json:
            write_json({"page": page, "servers": addresses}, indent=None)
        else:
            write(f"page: {page}")
            write("Ctrl-C stops it.")
        if args.open:
            webbrowser.open(page)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
    return 0


@contextmanager
def page_for(
    repository: Path,
    grpc_address: str,
    *,
    names: Sequence[str] = (),
    config: Path | None = None,
    port: int = 0,
) -> Iterator[str]:
    """Serve the page of one model server on loopback, and yield its address.

    Raises:
        ModelServerError: The port cannot be used.
    """
    with ReplicaClient(grpc_address) as replica, GrpcClient(grpc_address) as client:
        site = Site(
            client=client,
            servers=[replica],
            repository=ModelRepository(repository),
            names=names,
            config=() if config is None else (config,),
        )
        with serving_page(site, host=contract.DEFAULT_HOST, port=port) as address:
            yield address


@contextmanager
def serving_page(site: Site, *, host: str, port: int) -> Iterator[str]:
    """Serve the page from a thread until the context ends, and yield its address.

    Raises:
        ModelServerError: The address cannot be used, or the page did not start.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, OverflowError) as exc:
            raise ModelServerError(
                f"the page cannot use {host} port {port} ({exc}); choose another port, or 0 for "
                "any free one"
            ) from exc
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(site, host=host),
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        thread = threading.Thread(target=server.run, args=([listener],), name="page", daemon=True)
        thread.start()
        deadline = time.monotonic() + _START_TIMEOUT
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)
        if not server.started:
            raise ModelServerError(f"the page did not start on {host} port {port}")
        shown = f"[{host}]" if ":" in host else host
        try:
            yield f"http://{shown}:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(_START_TIMEOUT)
