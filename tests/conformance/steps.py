"""The steps of a scenario: each changes files, the server or its load, and may have an outcome."""

import os
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.conformance.compare import Difference, Masks, step_differences
from tests.conformance.server import Server, Workshop
from tests.conformance.wire import Json, model_states, open_channel

__all__ = ["prepare", "scenario_differences"]

_POLL_INTERVAL, _LOAD_INTERVAL = 0.03, 0.01  # seconds


def scenario_differences(scenario: Json, workshop: Workshop) -> list[Difference]:
    """Run a scenario and compare each outcome.

    Ends early if a server does not start as recorded.
    """
    steps = _Steps(Server(workshop))
    differences: list[Difference] = []
    try:
        for number, step in enumerate(scenario["steps"]):
            label = " ".join([step["do"], *([step["note"]] if "note" in step else [])])
            result = steps.run_and_compare(step, workshop.mask)
            differences += [
                Difference(kind, f"step {number} ({label}): {text}") for kind, text in result
            ]
            if step["do"] == "start" and any(kind == "status" for kind, _ in differences):
                break
    finally:
        steps.close()
    return differences


def prepare(server: Server, steps: list[Json]) -> None:
    """Run the steps that come before the start of a setup's server."""
    runner = _Steps(server)
    for step in steps:
        runner.run(step)


@dataclass(kw_only=True)
class _Load:
    """The same request over and over, until told to stop."""

    step: Json
    kinds: set[str] = field(default_factory=set)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self, steps: "_Steps") -> None:
        while not self.over.is_set():
            answer = steps.run(self.step) or {}
            if "code" in answer:
                self.kinds.add(f"{answer['code']}: {answer['details']}")
            else:
                status = answer.get("status", answer.get("error"))
                self.kinds.add(f"{status} {answer.get('body', '')}")
            time.sleep(_LOAD_INTERVAL)


class _Steps:
    """Runs steps against one server; a method for each kind of step, by its name."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._begun: dict[str, tuple[Json, Future[Json | None]]] = {}
        self._loads: dict[str, tuple[_Load, threading.Thread]] = {}

    def close(self) -> None:
        for load, _ in self._loads.values():
            load.over.set()
        self._server.close()

    def run(self, step: Json) -> Json | None:
        """Run one step and return its outcome, if it has one.

        Raises:
            ValueError: There is no step of this kind.
        """
        method = getattr(self, f"do_{step['do']}", None)
        if method is None:
            raise ValueError(f"unknown step {step['do']!r}")
        outcome: Json | None = method(step)
        return outcome

    def run_and_compare(self, step: Json, mask: Masks) -> list[Difference]:
        got = self.run(step) or {}
        expected = step.get("outcome")
        if step["do"] == "finish":
            step = self._begun[step["id"]][0]
        return [] if expected is None else step_differences(step, expected, got, mask)

    def do_copy_model(self, step: Json) -> None:
        self._server.copy_model(step["from"], step["to"])

    def do_mkdir(self, step: Json) -> None:
        self._server.path(step["path"]).mkdir(exist_ok=True)

    def do_write(self, step: Json) -> None:
        path = self._server.path(step["path"])
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.write_text(self._server.fill(step["text"]), encoding="utf-8")
        temporary.rename(path)

    def do_chmod(self, step: Json) -> None:
        self._server.path(step["path"]).chmod(int(step["mode"], 8))

    def do_remove(self, step: Json) -> None:
        path = self._server.path(step["path"])
        if not path.is_dir():
            path.unlink()
            return
        # A folder disappears in one step for whoever watches it.
        trash = self._server.path(f".trash/{step['path'].replace('/', '_')}")
        path.rename(trash)
        shutil.rmtree(trash)

    def do_rename(self, step: Json) -> None:
        self._server.path(step["from"]).rename(self._server.path(step["to"]))

    def do_sleep(self, step: Json) -> None:
        time.sleep(step["seconds"])

    def do_start(self, step: Json) -> Json:
        return self._server.start(
            step["flags"],
            wait=step.get("wait_s", 60),
            scann=step.get("scann", False),
            environment=step.get("env"),
            ports=step.get("ports", True),
        )

    def do_stop(self, step: Json) -> None:
        self._server.stop()

    def do_signal(self, step: Json) -> None:
        os.kill(self._server.process.pid, signal.Signals[f"SIG{step['signal']}"])

    def do_wait_exit(self, step: Json) -> Json:
        try:
            code = self._server.process.wait(step.get("timeout_s", 15))
        except subprocess.TimeoutExpired:
            return {"result": "running"}
        return {"result": "exited", "exit_code": code}

    def do_alive(self, step: Json) -> Json:
        return {"alive": self._server.process.poll() is None}

    def do_http(self, step: Json) -> Json:
        return self._server.http(step, compare=step.get("compare"))

    def do_grpc(self, step: Json) -> Json:
        return self._server.grpc(step)

    def do_poll(self, step: Json) -> Json:
        """Ask for the versions' states until those in `until` are all there."""
        deadline = time.monotonic() + step.get("timeout_s", 15)
        seen: list[Json] = []
        gap = reached = False
        while True:
            final = model_states(self._server.channel, step["model"], unfill=self._server.unfill)
            states = {
                version: status["state"] if isinstance(status, dict) else status
                for version, status in sorted(final.items())
            }
            if seen[-1:] != [states]:
                seen.append(states)
            gap = gap or "AVAILABLE" not in states.values()
            reached = all(states.get(version) == state for version, state in step["until"].items())
            if reached or time.monotonic() > deadline:
                break
            time.sleep(_POLL_INTERVAL)
        return {"reached": reached, "final": final, "seen": seen, "ever_without_available": gap}

    def do_begin(self, step: Json) -> None:
        """Send a request in the background; `finish` has its outcome."""
        future: Future[Json | None] = Future()

        def send() -> None:
            try:
                future.set_result(self.run(step["step"]))
            except BaseException as exc:
                future.set_exception(exc)

        self._begun[step["id"]] = (step["step"], future)
        threading.Thread(target=send, daemon=True).start()

    def do_finish(self, step: Json) -> Json:
        with suppress(NotYet):
            if answer := self._begun[step["id"]][1].result(step.get("timeout_s", 60)):
                return answer
        return {"error": "no answer"}

    def do_concurrent(self, step: Json) -> Json:
        """Send the same request many times at once, each over a connection of its own."""
        inner, timeout = step["step"], step.get("timeout_s", 60)
        pool = ThreadPoolExecutor(step["n"])
        futures = [pool.submit(self._send_alone, inner) for _ in range(step["n"])]
        kinds = set()
        for future in futures:
            kind = "none"
            with suppress(NotYet):
                answer = future.result(timeout)
                if "code" in answer:
                    kind = f"{answer['code']}: {answer['details']}"
                else:
                    kind = str(answer.get("status", answer.get("error")))
            kinds.add(kind)
        pool.shutdown(wait=False)
        return {"kinds": sorted(kinds)}

    def _send_alone(self, step: Json) -> Json:
        if step["do"] != "grpc":
            return self.do_http(step)
        channel: Any = open_channel(f"127.0.0.1:{self._server.grpc_port}")
        with channel:
            return self._server.grpc(step, channel=channel)

    def do_load_start(self, step: Json) -> None:
        load = _Load(step=step["step"])
        thread = threading.Thread(target=load.run, args=(self,), daemon=True)
        self._loads[step["id"]] = (load, thread)
        thread.start()

    def do_load_stop(self, step: Json) -> Json:
        load, thread = self._loads[step["id"]]
        load.over.set()
        thread.join(60)
        return {"kinds": sorted(load.kinds)}
