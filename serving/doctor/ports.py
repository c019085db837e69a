"""Check of the ports that servers listen on: free, or held by which process. Linux only."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from shortlist.clients import contract
from shortlist.serving.doctor.check import Check, ok, warning
from shortlist.serving.errors import ModelServerError
from shortlist.serving.servers.options import claim_port

__all__ = ["check_ports"]

_LISTENS: Final = "0A"  # state in /proc/net/tcp
_PORTS: Final = {
    contract.DEFAULT_GRPC_PORT: ("gRPC", "--port"),
    contract.DEFAULT_REST_PORT: ("REST", "--rest-port"),
}


def check_ports(proc: Path = Path("/proc")) -> Iterator[Check]:
    """Yield a check of each default port."""
    for port, (api, option) in _PORTS.items():
        name = f"port {port}"
        try:
            claim_port(port, option=option)
        except ModelServerError:
            holder = _holder(proc, port) or "a process that this user cannot see"
            yield warning(
                name, f"{api}, held by {holder}", f"end it, or choose another port: {option} 0"
            )
        else:
            yield ok(name, f"{api}, free")


def _holder(proc: Path, port: int) -> str | None:
    """Return the name and number of the process that listens on a port."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(proc, port)}
    for process in proc.iterdir() if sockets else ():
        if process.name.isdigit() and _opens(process, sockets):
            with suppress(OSError):  # it has ended
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
    return None


def _inodes(proc: Path, port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with suppress(OSError):  # no such network
            for line in (proc / "net" / table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _opens(process: Path, sockets: set[str]) -> bool:
    with suppress(OSError):  # another user's process, or it has ended
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                if str(descriptor.readlink()) in sockets:
                    return True
    return False
