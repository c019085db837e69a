"""The ConfigMap of a rollout in a cluster, against a fake Kubernetes API."""

import importlib.util
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.paths import ROOT

SCRIPT = ROOT / "docker/kubernetes/rollout/configmap_sync.py"
NAMES = ("models.config", "split.json")


@pytest.fixture(scope="module")
def sync() -> ModuleType:
    spec = importlib.util.spec_from_file_location("configmap_sync", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class FakeApi:
    """One ConfigMap, with the API server's optimistic locking."""

    def __init__(self) -> None:
        self.data = {"models.config": "first"}
        self.version = 1
        self.tokens: set[str] = set()

    def answer(self, method: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if method == "PATCH":
            if body["metadata"]["resourceVersion"] != str(self.version):
                return 409, {"message": "the object has been modified"}
            self.data |= body["data"]
            self.version += 1
        return 200, {"metadata": {"resourceVersion": str(self.version)}, "data": self.data}


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def config_map(sync: ModuleType, api: FakeApi, tmp_path: Path) -> Iterator[Any]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            api.tokens.add(self.headers["Authorization"])
            assert self.path == "/api/v1/namespaces/shop/configmaps/shortlist-models"
            status, answer = api.answer(self.command, json.loads(self.rfile.read(length) or b"{}"))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PATCH = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *message: object) -> None:
            """Do not log."""

    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("secret\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        yield sync.ConfigMap(address, "shop", "shortlist-models", account)
        server.shutdown()
        thread.join()


def wait_until(met: Any, timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_fetch_writes_the_entries_with_the_pods_token(
    sync: ModuleType, config_map: Any, api: FakeApi, tmp_path: Path
) -> None:
    api.data["unknown"] = "left alone"
    sync.fetch(config_map, tmp_path, NAMES)
    assert (tmp_path / "models.config").read_text() == "first"
    assert not (tmp_path / "unknown").exists()
    assert api.tokens == {"Bearer secret"}


def test_follow_writes_each_change_and_the_last_one_after_the_signal(
    sync: ModuleType, config_map: Any, api: FakeApi, tmp_path: Path
) -> None:
    sync.fetch(config_map, tmp_path, NAMES)
    stop = threading.Event()
    following = threading.Thread(
        target=sync.follow, args=(config_map, tmp_path, NAMES, stop), kwargs={"poll_interval": 0.02}
    )
    following.start()
    (tmp_path / "models.config").write_text("second")
    wait_until(lambda: api.data["models.config"] == "second")
    (tmp_path / "split.json").write_text("{}")
    stop.set()
    following.join(timeout=10)
    assert api.data == {"models.config": "second", "split.json": "{}"}


def test_a_change_by_another_process_is_not_overwritten(
    sync: ModuleType, config_map: Any, api: FakeApi
) -> None:
    config_map.read()
    api.version += 1
    with pytest.raises(sync.SyncError, match="409 the object has been modified"):
        config_map.write({"models.config": "mine"})
    assert api.data["models.config"] == "first"
