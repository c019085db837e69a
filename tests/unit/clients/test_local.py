"""The client over a function, and what `LocalClient` says before it loads anything."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from shortlist import LocalClient, Split
from shortlist.clients.errors import DeadlineExceeded, ServableNotFound
from shortlist.clients.local import InProcessClient, Refused
from shortlist.clients.wire import messages
from shortlist.clients.wire.methods import Method
from shortlist.serving import installed
from shortlist.serving.errors import ModelServerError, RepositoryError

OPTIONS = {"model": "m", "timeout": 0.2, "retry": None, "hooks": (), "limits": None}


class Models:
    """Knows no model; `prepare` takes longer than a call may."""

    code = "NOT_FOUND"

    def __init__(self) -> None:
        self.prepared: list[tuple[str, int | None, Sequence[str]]] = []

    def prepare(self, name: str, version: int | None, labels: Sequence[str]) -> None:
        self.prepared.append((name, version, labels))
        time.sleep(0.25)

    def answer(self, method: Method, request: Any, timeout: float | None) -> Any:
        if method.name == "GetModelStatus" and request.model_spec.name == "m":
            return messages.GetModelStatusResponse()
        raise Refused(self.code, "Servable not found for request: Latest(m)")

    def client(self) -> InProcessClient:
        return InProcessClient(
            "models", show="shortlist versions", answer=self.answer, prepare=self.prepare,
            caller=OPTIONS,
        )  # fmt: skip


def test_loading_does_not_count_towards_the_timeout() -> None:
    models = Models()
    with models.client() as client:
        assert client.status().versions == ()
        split = Split({"stable": 0.5, "canary": 0.5})
        with pytest.raises(ServableNotFound, match=r"no servable 'm' label '.*' at models: .*"):
            client.retrieve(["1"], label=split)
    assert models.prepared == [("m", None, []), ("m", None, ["stable", "canary"])]


def test_run_that_was_cut_off_is_a_timeout() -> None:
    models = Models()
    models.code = "DEADLINE_EXCEEDED"
    with models.client() as client, pytest.raises(DeadlineExceeded, match="did not end within"):
        client.retrieve(["1"])


def test_local_client_says_what_is_missing(tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(RepositoryError, match=r"no servable in .*; publish one with"):
        LocalClient(tmp_path)
    (tmp_path / "m" / "1").mkdir(parents=True)
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    with pytest.raises(ModelServerError, match="cannot be loaded: tensorflow is not installed; "):
        LocalClient(tmp_path)
