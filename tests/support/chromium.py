"""A headless Chromium, driven by the DevTools protocol over a pipe: no ports, no driver."""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import pytest

__all__ = ["Browser", "Page", "browser"]

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_START_TIMEOUT, _CALL_TIMEOUT = 60.0, 60.0  # seconds
_FLAGS = (
    "--headless",
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    # Pages must not request anything but from a test's own server.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
)


class Browser:
    """A running Chromium with one page."""

    def __init__(self, program: str, profile: Path) -> None:
        to_browser, self._to = os.pipe()
        self._from, from_browser = os.pipe()
        self._log = (profile / "stderr").open("w+")

        def wire() -> None:
            # The browser reads commands from descriptor 3 and answers on 4, so first move both
            # ends off those two numbers.
            commands, answers = os.dup(to_browser), os.dup(from_browser)
            while commands in (3, 4) or answers in (3, 4):
                commands, answers = os.dup(commands), os.dup(answers)
            os.dup2(commands, 3)
            os.dup2(answers, 4)

        self._process = subprocess.Popen(
            [program, *_FLAGS, f"--user-data-dir={profile / 'data'}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            preexec_fn=wire,
            close_fds=False,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._last = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        targets = self.call("Target.getTargets", timeout=_START_TIMEOUT)["targetInfos"]
        target = next(entry["targetId"] for entry in targets if entry["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def call(self, method: str, *, timeout: float = _CALL_TIMEOUT, **params: Any) -> dict[str, Any]:
        """Return the result of a DevTools command; events that arrive meanwhile are stored."""
        self._last += 1
        number = self._last
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + timeout
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _wait_until_loaded(self, loader: str, address: str) -> None:
        """Wait until this navigation has loaded, not an earlier one."""
        deadline = time.monotonic() + _CALL_TIMEOUT
        loaded = ("Page.lifecycleEvent", loader, "load")
        while not any(
            (event.get("method"), event["params"].get("loaderId"), event["params"].get("name"))
            == loaded
            for event in self.events
        ):
            self.events.append(self._receive(deadline, f"to load {address}"))

    def _receive(self, deadline: float, waiting_for: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self._from], [], [], left)[0]
            chunk = os.read(self._from, 1 << 20) if ready else b""
            if not chunk:
                what = "ended" if ready else "does not answer"
                pytest.fail(f"Chromium {what} ({waiting_for}); it wrote:\n{self._written()}")
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _written(self) -> str:
        self._log.seek(0)
        return self._log.read()[-4000:]

    def open(
        self, place: Path | str, *, width: int, height: int = 900, scheme: str = "light"
    ) -> "Page":
        """Load a file or an address into a window of this size in CSS pixels."""
        address = place if isinstance(place, str) else place.as_uri()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.prefer(scheme)
        self.events.clear()
        loader = self.call("Page.navigate", url=address)["loaderId"]
        self._wait_until_loaded(loader, address)
        return Page(self)

    def prefer(self, scheme: str) -> None:
        """Show pages in light or dark colours."""
        self.call(
            "Emulation.setEmulatedMedia",
            media="",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )

    def close(self) -> None:
        """End the browser and all its processes."""
        for stream in (self._to, self._from):
            os.close(stream)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Page:
    """A loaded page, and the events of its loading."""

    def __init__(self, owner: Browser) -> None:
        self._owner = owner

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page, or what it promises."""
        answer = self._owner.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def violations(self, *rules: str) -> list[str]:
        """Return the rules of accessibility that the page breaks by axe-core, with elements.

        Args:
            *rules: Rules to check; all if there are none.
        """
        self.evaluate(f"{_axe()};0")
        found: list[str] = self.evaluate(
            f"axe.run({json.dumps({'runOnly': rules} if rules else {})})"
            ".then(result => result.violations.map(broken => broken.id + ': ' + "
            "broken.nodes.map(node => node.html.slice(0, 150)).join(' ')))"
        )
        return found

    def screenshot(self) -> bytes:
        """Return the whole page as PNG, also beyond the height of the window."""
        got = self._owner.call(
            "Page.captureScreenshot",
            format="png",
            captureBeyondViewport=True,
            optimizeForSpeed=True,
        )
        return base64.b64decode(got["data"])

    def as_printed(self) -> None:
        """Show the page with its print styles, at the width of the window."""
        self._owner.call("Emulation.setEmulatedMedia", media="print")

    def pdf(self) -> bytes:
        """Return the printed page."""
        got = self._owner.call("Page.printToPDF", printBackground=False, preferCSSPageSize=True)
        return base64.b64decode(got["data"])

    def requests(self) -> list[str]:
        """Return all requested addresses, including the page's own."""
        return [
            event["params"]["request"]["url"]
            for event in self._owner.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def complaints(self) -> list[str]:
        """Return the errors and warnings of the console."""
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [
            json.dumps(event["params"])
            for event in self._owner.events
            if event.get("method") in kinds
        ]


@cache
def _axe() -> str:
    return (files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start a headless Chromium with a new profile below `folder`; skip the test without one."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip("no Chromium; run tests/support/install_chromium.sh as root")
    with Browser(program, folder) as running:
        yield running
