"""`shortlist serve`."""

import argparse
import logging
from contextlib import ExitStack
from pathlib import Path

from shortlist.clients.cli.output import write, write_json
from shortlist.serving.errors import ModelServerError
from shortlist.serving.repository.selection import Selection
from shortlist.serving.servers.kinds import ServerKind
from shortlist.serving.servers.options import claim_port
from shortlist.serving.servers.runner import ModelServer
from shortlist.serving.servers.serve import ServeRequest, replace_process, running

__all__ = ["serve"]

log = logging.getLogger(__name__)

# Flags that say what to serve: with them the server needs no repository from us.
_RAW_FLAGS = frozenset({"--model_config_file", "--model_base_path"})


def serve(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        RepositoryError: There is nothing to serve.
        ModelServerError: The server did not start, was not ready in time, or ended by itself.
    """
    if any(flag.partition("=")[0] in _RAW_FLAGS for flag in args.flags):
        replace_process(ServerKind(args.server), args.flags)
    request = ServeRequest(
        repository=args.repository,
        kind=ServerKind(args.server),
        names=tuple(args.servable) if args.servable else None,
        config=args.config,
        grpc_port=args.port,
        rest_port=args.rest_port,
        timeout=args.timeout,
        log_file=Path(args.log_file) if args.log_file else None,
        image=args.image,
        flags=tuple(args.flags),
        request_log=args.request_log,
        request_log_rate=args.request_log_rate,
        no_request_log=args.no_request_log,
    )
    if args.ui:
        # Before the server starts, as this fails without the page's packages.
        from shortlist.serving.ui.command import page_for

        claim_port(args.ui_port, option="--ui-port")
    try:
        with running(request) as (server, selection), ExitStack() as stack:
            page = None
            if args.ui:
                names = [servable.name for servable in selection.served]
                context = page_for(
                    request.repository,
                    server.grpc_address,
                    names=names,
                    config=request.config,
                    port=args.ui_port,
                )
                page = stack.enter_context(context)
            _announce(server, selection, kind=request.kind, json=args.json, page=page)
            status = server.wait()
    except KeyboardInterrupt:
        log.info("stopped")
        return 0
    raise ModelServerError(f"the {request.kind} server ended by itself with status {status}")


def _announce(
    server: ModelServer, selection: Selection, *, kind: str, json: bool, page: str | None
) -> None:
    if json:
        document = {
            "server": kind,
            "grpc": server.grpc_address,
            "rest": server.rest_address,
            **({} if page is None else {"page": page}),
            "servables": {servable.name: servable.version for servable in selection.served},
            "left_out": {left_out.name: left_out.reason for left_out in selection.left_out},
        }
        write_json(document, indent=None)
        return
    width = max(len(servable.name) for servable in selection.served)
    for servable in selection.served:
        write(f"{servable.name:{width}}  version {servable.version}  AVAILABLE")
    write(f"gRPC {server.grpc_address}, REST http://{server.rest_address}/v1/models/")
    if page is not None:
        write(f"page: {page}")
    write("Ctrl-C stops the server.")
