"""Loads and unloads versions until the served ones are the aspired ones.

The manager keeps a table of versions. The watcher tells it which versions of a model are
aspired. Each `step` updates the table, asks the pure policy in `rollover` for the next action
of each model and starts it in a thread; when the thread has finished, the next step follows.
The states that clients see are published on the `StateBoard`:

    START -> LOADING -> AVAILABLE -> UNLOADING -> END, or from LOADING to END with an error.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from shortlist.clients.types import State
from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.api.interfaces import Servable
from shortlist.serving.embedded.lifecycle.handles import Handle, ServingMap
from shortlist.serving.embedded.lifecycle.loading import (
    LoadRetries,
    LoadServable,
    load_with_retries,
)
from shortlist.serving.embedded.lifecycle.rollover import (
    Action,
    ActionKind,
    Phase,
    VersionView,
    next_action,
)
from shortlist.serving.embedded.lifecycle.states import StateBoard

__all__ = ["Manager"]

log = logging.getLogger(__name__)

Spawn = Callable[[str, Callable[[], None]], None]


@dataclass(kw_only=True, eq=False)
class _Managed:
    """One version in the table; changed only under the manager's lock."""

    name: str
    version: int
    path: str
    phase: Phase = Phase.NEW
    aspired: bool = True
    handle: Handle | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)


def _in_thread(name: str, work: Callable[[], None]) -> None:
    threading.Thread(target=work, name=name, daemon=True).start()


class Manager:
    """Table of versions, and the threads that load and unload them; thread-safe.

    Args:
        load: Loads and warms up one version; called in background threads.
        board: Board to publish states on.
        retries: Retries of a failed load.
        load_threads: Loads at a time; 0 counts as 1. See `set_load_threads`.
        spawn: Runs named work in the background; by default in a new thread.

    Attributes:
        serving: Loaded servables, for requests.
    """

    def __init__(
        self,
        load: LoadServable,
        board: StateBoard,
        *,
        retries: LoadRetries,
        load_threads: int = 0,
        spawn: Spawn = _in_thread,
    ) -> None:
        self._load = load
        self._board = board
        self._retries = retries
        self._spawn = spawn
        self._changed = threading.Condition()
        self._table: dict[str, dict[int, _Managed]] = {}
        self._pending: dict[str, Mapping[int, str]] = {}  # aspired, not yet in the table
        self.serving = ServingMap()
        self._load_slots = max(load_threads, 1)
        self._loading = 0  # attempts that run now, not those that wait for a retry
        self._dirty = False
        self._stopping = False
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------ from outside

    def aspire(self, name: str, versions: Mapping[int, str]) -> None:
        """Set the aspired versions of a model: path by version."""
        with self._changed:
            self._pending[name] = dict(versions)
            self._wake()

    def set_load_threads(self, count: int) -> None:
        """Set the number of loads at a time; 0 counts as 1."""
        with self._changed:
            self._load_slots = max(count, 1)
            self._wake()

    def start(self) -> None:
        """Start taking steps in a thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="manager", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Take no more steps, and close the loaded versions that no request uses."""
        with self._changed:
            self._stopping = True
            entries = [entry for versions in self._table.values() for entry in versions.values()]
            for entry in entries:
                entry.cancelled.set()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        self.serving.replace({})
        for entry in entries:
            if entry.handle is None or entry.phase is not Phase.READY:
                continue
            if entry.handle.drain(0.0):
                self._close(entry, entry.handle.servable)

    # ------------------------------------------------------------------ one step

    def step(self) -> bool:
        """Start all actions that are possible now; return False if there were none."""
        with self._changed:
            self._dirty = False
            self._forget_finished()
            progress = self._update_table()
            actions = [
                (name, action)
                for name, versions in self._table.items()
                if (action := next_action(map(_view, versions.values()))) is not None
            ]
            actions.sort(key=lambda item: item[1].kind is ActionKind.LOAD)
            for name, action in actions:
                progress |= self._begin(self._table[name][action.version], action)
        return progress

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._dirty or self._stopping)
                if self._stopping:
                    return
            while self.step():
                pass

    def _wake(self) -> None:
        self._dirty = True
        self._changed.notify_all()

    def _forget_finished(self) -> None:
        over = (Phase.NEW, Phase.DISABLED, Phase.ERROR)
        for name in list(self._table):
            left = {v: e for v, e in self._table[name].items() if e.aspired or e.phase not in over}
            if left:
                self._table[name] = left
            else:
                del self._table[name]

    def _update_table(self) -> bool:
        progress = False
        for name, versions in list(self._pending.items()):
            table = self._table.setdefault(name, {})
            if any(not entry.aspired and entry.version in versions for entry in table.values()):
                # A version that is about to unload is aspired again. It must end before it can
                # come back, so the new set waits; a newer set can replace it.
                continue
            del self._pending[name]
            for version, entry in table.items():
                if version not in versions and entry.aspired:
                    entry.aspired = False
                    entry.cancelled.set()
                    progress = True
            for version, path in versions.items():
                if version not in table:
                    table[version] = _Managed(name=name, version=version, path=path)
                    self._board.publish(name, version, State.START)
                    progress = True
            if not table:
                del self._table[name]
        return progress

    def _begin(self, entry: _Managed, action: Action) -> bool:
        if action.kind is ActionKind.LOAD:
            if self._loading >= self._load_slots:
                return False
            self._loading += 1  # released by the thread after its first attempt
            entry.phase = Phase.LOADING
            work = self._load_version
        else:
            entry.phase = Phase.UNLOADING
            work = self._unload_version
        kind = action.kind.name.lower()
        self._spawn(f"{kind} {entry.name} {entry.version}", lambda: work(entry))
        return True

    # ------------------------------------------------------------------ in the background

    def _load_version(self, entry: _Managed) -> None:
        self._board.publish(entry.name, entry.version, State.LOADING)
        started = time.monotonic()
        first_attempt = iter((True,))

        @contextmanager
        def slot() -> Iterator[None]:
            with self._changed:
                if not next(first_attempt, False):
                    self._changed.wait_for(lambda: self._loading < self._load_slots)
                    self._loading += 1
            try:
                yield
            finally:
                with self._changed:
                    self._loading -= 1
                    self._wake()

        try:
            servable = load_with_retries(
                *(self._load, entry.name, entry.version, entry.path),
                retries=self._retries,
                cancelled=entry.cancelled,
                slot=slot,
            )
        except StatusError as exc:
            self._finish(entry, Phase.ERROR, exc.code, exc.message)
            return
        with self._changed:
            aspired = not entry.cancelled.is_set()
            if aspired:
                entry.handle = Handle(servable)
                entry.phase = Phase.READY
                self._publish_serving()
                self._board.publish(entry.name, entry.version, State.AVAILABLE)
                self._wake()
        if aspired:
            took = time.monotonic() - started
            log.info("version %d of %s is AVAILABLE after %.2f s", entry.version, entry.name, took)
        else:
            self._close(entry, servable)
            message = "Loading of servable cancelled"
            self._finish(entry, Phase.DISABLED, Code.CANCELLED, message)

    def _unload_version(self, entry: _Managed) -> None:
        assert entry.handle is not None
        self._board.publish(entry.name, entry.version, State.UNLOADING)
        with self._changed:
            self._publish_serving()
        entry.handle.drain()
        self._close(entry, entry.handle.servable)
        self._finish(entry, Phase.DISABLED)
        log.info("version %d of %s is unloaded", entry.version, entry.name)

    def _finish(
        self, entry: _Managed, phase: Phase, code: Code = Code.OK, message: str = ""
    ) -> None:
        with self._changed:
            entry.phase = phase
            entry.handle = None
            self._board.publish(entry.name, entry.version, State.END, code, message)
            self._wake()

    def _publish_serving(self) -> None:
        self.serving.replace(
            {
                name: {
                    version: entry.handle
                    for version, entry in versions.items()
                    if entry.phase is Phase.READY and entry.handle is not None
                }
                for name, versions in self._table.items()
            }
        )

    @staticmethod
    def _close(entry: _Managed, servable: Servable) -> None:
        try:
            servable.close()
        except Exception:
            log.exception("closing version %d of %s failed", entry.version, entry.name)


def _view(entry: _Managed) -> VersionView:
    return VersionView(version=entry.version, phase=entry.phase, aspired=entry.aspired)
