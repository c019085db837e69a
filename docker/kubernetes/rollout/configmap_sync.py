"""Synchronize a ConfigMap and a folder, so that `shortlist rollout` can write files in a cluster.

`fetch` writes the ConfigMap's entries into the folder. `follow` writes changed files back until
SIGTERM, and then a last time. If another process changed the ConfigMap meanwhile, it fails and
overwrites nothing. Needs the standard library alone; calls the API server with the pod's service
account.
"""

import argparse
import json
import os
import signal
import ssl
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT = 10.0  # seconds for one call


class SyncError(Exception):
    """The ConfigMap could not be read or written."""


class ConfigMap:
    """One ConfigMap behind the Kubernetes API."""

    def __init__(self, server: str, namespace: str, name: str, account: Path = ACCOUNT) -> None:
        self._url = f"{server}/api/v1/namespaces/{namespace}/configmaps/{name}"
        self._account = account
        self._version: str | None = None

    def read(self) -> dict[str, str]:
        """Return the entries."""
        answer = self._call("GET", None)
        self._version = answer["metadata"]["resourceVersion"]
        entries: dict[str, str] = answer.get("data") or {}
        return entries

    def write(self, entries: dict[str, str]) -> None:
        """Replace entries, unless the ConfigMap has changed since it was last read or written.

        Raises:
            SyncError: The ConfigMap has changed, or the API refuses.
        """
        change = {"metadata": {"resourceVersion": self._version}, "data": entries}
        self._version = self._call("PATCH", change)["metadata"]["resourceVersion"]

    def _call(self, method: str, body: dict[str, Any] | None) -> dict[str, Any]:
        token = (self._account / "token").read_text(encoding="utf-8").strip()
        request = urllib.request.Request(
            self._url,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/merge-patch+json",
            },
        )
        authority = self._account / "ca.crt"
        context = ssl.create_default_context(cafile=authority) if authority.exists() else None
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT, context=context) as answer:
                content: dict[str, Any] = json.load(answer)
                return content
        except urllib.error.HTTPError as exc:
            reason = json.loads(exc.read() or b"{}").get("message", exc.reason)
            raise SyncError(f"{method} {self._url}: {exc.code} {reason}") from exc
        except OSError as exc:
            raise SyncError(f"{method} {self._url}: {exc}") from exc


def files_in(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the text of each named file that exists."""
    paths = [folder / name for name in names]
    return {path.name: path.read_text(encoding="utf-8") for path in paths if path.is_file()}


def fetch(config_map: ConfigMap, folder: Path, names: Sequence[str]) -> None:
    """Write the named entries as files."""
    for name, text in config_map.read().items():
        if name in names:
            (folder / name).write_text(text, encoding="utf-8")


def follow(
    config_map: ConfigMap,
    folder: Path,
    names: Sequence[str],
    stop: threading.Event,
    *,
    poll_interval: float,
) -> None:
    """Write changed files back until `stop` is set."""
    known = {name: text for name, text in config_map.read().items() if name in names}
    stopping = False
    while True:
        current = files_in(folder, names)
        if current != known:
            config_map.write(current)
            sys.stderr.write(f"configmap_sync: wrote {', '.join(sorted(current))}\n")
            known = current
        if stopping:
            return
        # One more look after the signal: the last write may have come just before it.
        stopping = stop.wait(poll_interval)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `fetch` or `follow`."""
    parser = argparse.ArgumentParser(description="Synchronize a ConfigMap and a folder.")
    parser.add_argument("action", choices=("fetch", "follow"))
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--config-map", required=True)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument(
        "--file", action="append", required=True, help="entry to synchronize; can be repeated"
    )
    parser.add_argument("--poll-interval", type=float, default=0.5, help="seconds (default: 0.5)")
    args = parser.parse_args(argv)
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    if host is None:
        sys.stderr.write("configmap_sync: KUBERNETES_SERVICE_HOST is not set; run it in a pod\n")
        return 1
    address = f"[{host}]" if ":" in host else host
    server = f"https://{address}:{os.environ.get('KUBERNETES_SERVICE_PORT', '443')}"
    config_map = ConfigMap(server, args.namespace, args.config_map)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        if args.action == "fetch":
            fetch(config_map, args.folder, args.file)
        else:
            follow(config_map, args.folder, args.file, stop, poll_interval=args.poll_interval)
    except (SyncError, OSError) as exc:
        sys.stderr.write(f"configmap_sync: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
