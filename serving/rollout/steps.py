"""Carries out one step: bring a configuration to every server, wait, write it down."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from shortlist.clients.wire.messages import ModelServerConfig
from shortlist.serving.errors import RolloutError
from shortlist.serving.repository.golden import read_golden
from shortlist.serving.repository.server_config import (
    ModelEntry,
    server_base_path,
    with_entry,
    without_entry,
)
from shortlist.serving.rollout.fleet import CheckError, Fleet, RefusedError, UnreachableError
from shortlist.serving.rollout.lint import Severity, lint
from shortlist.serving.rollout.plan import Step, StepKind, entry_for
from shortlist.serving.rollout.state import ServableState, ServerState

__all__ = ["StepOptions", "StepRunner", "refuse_if_changed"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """Times of one step, in seconds.

    Attributes:
        timeout: Until every server has done what the step asks.
        poll_interval: Between two questions to a server.
        settle: How long a server may still report a failure of an earlier attempt to load.
        lock_timeout: Wait for another rollout to end.
    """

    timeout: float = 300.0
    poll_interval: float = 0.1
    settle: float = 5.0
    lock_timeout: float = 10.0

    def __post_init__(self) -> None:
        for name in ("timeout", "poll_interval"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


class _LoadError(RolloutError):
    """A server gave up loading a version."""


def refuse_if_changed(fleet: Fleet, name: str, expected: ModelEntry | None) -> None:
    """Stops where the file's entry is not what it was.

    Raises:
        RolloutError: Somebody else changed it.
    """
    if fleet.config_file.entry(name) != expected:
        raise RolloutError(
            f"somebody else changed {name!r} in {fleet.config_file.path} during this rollout; "
            "nothing more was done. See `shortlist rollout status`, then give the command again"
        )


class StepRunner:
    """Carries out steps on a fleet."""

    def __init__(self, fleet: Fleet, options: StepOptions, *, persist: bool) -> None:
        """Makes a runner.

        Args:
            fleet: Where.
            options: Times.
            persist: Go on with the other servers where one refuses or is gone, and report
                it in the end: for ways back.
        """
        self.fleet = fleet
        self.options = options
        self.persist = persist

    def run(self, step: Step, state: ServableState) -> bool:
        """Carries out one step from a state.

        Returns:
            Whether it is done; False where a server has lost what it was sent, as one does
            that is restarted, so that a new plan is needed.

        Raises:
            RolloutError: A server is down or refuses, or is not done in time; a version does
                not load or does not answer as it should, and was taken out again.
        """
        for version in step.check:
            self._check(step.name, state, version)
        self._config(step.name, step.entry)  # refuse what would break before anything is sent
        if step.kind is StepKind.RECORD or self.fleet.polled:
            self._write(step, state)
        if step.kind is StepKind.RECORD:
            return True
        try:
            if self.fleet.polled:
                return self._wait(step, state)
            self._push(step, state)
            done = self._wait(step, state)
        except _LoadError as exc:
            good = frozenset.intersection(*(server.available for server in state.servers))
            self._withdraw(step.name, state, step.available - good)
            raise RolloutError(f"{exc}; it was taken out again, and no label moved") from exc
        if done:
            # Last: a server that restarts from the file in between gets what was good.
            self._write(step, state)
        return done

    def _write(self, step: Step, state: ServableState) -> None:
        """Writes the step down, unless somebody else has changed the servable meanwhile."""
        refuse_if_changed(self.fleet, step.name, state.recorded)
        self.fleet.config_file.write(self._config(step.name, step.entry))

    def _config(self, name: str, entry: ModelEntry) -> ModelServerConfig:
        """The whole configuration, other models as the file has them now."""
        current = self.fleet.config_file.read()
        config = with_entry(current, name, entry, base_path=self._base_path(name))
        findings = lint(config, current=current, repository=self.fleet.repository)
        errors = [found for found in findings if found.severity is Severity.ERROR]
        own = [found for found in errors if found.model in (name, None)]
        if own:
            raise RolloutError(f"the configuration would break the service: {own[0]}")
        for found in errors:
            log.warning("in %s: %s", self.fleet.config_file.path, found)
        return config

    def _push(self, step: Step, state: ServableState) -> None:
        failures: dict[str, RolloutError] = {}
        done: list[str] = []
        for server in state.servers:
            config = self._config(step.name, entry_for(step, server))
            try:
                self.fleet.by_address(server.address).reload(config)
                done.append(server.address)
            except (UnreachableError, RefusedError) as exc:
                failures[server.address] = exc
                if not self.persist:
                    break
        if failures:
            address, reason = next(iter(failures.items()))
            others = f"; done on {', '.join(done)}" if done else ""
            raise RolloutError(
                f"{address} did not take the step '{step}': {reason}{others}. Give the same "
                "command again to go on, or `shortlist rollback` to go back"
            ) from reason

    def _wait(self, step: Step, state: ServableState) -> bool:
        """Waits until every server has done what the step asks; one deadline for all."""
        watch = _Watch(self.fleet, step, state, settled=time.monotonic() + self.options.settle)
        deadline = time.monotonic() + self.options.timeout
        while True:
            missing = watch.look()
            if not missing:
                return True
            if watch.lost:
                log.warning("a server has lost what it was sent: %s", ", ".join(watch.lost))
                return False
            if time.monotonic() >= deadline:
                address, reason = next(iter(missing.items()))
                raise RolloutError(
                    f"after {self.options.timeout:g} s {len(missing)} of {len(state.servers)} "
                    f"servers had not done '{step}' ({address}: {reason}); give the same "
                    "command again to go on waiting, or `shortlist abort` to go back"
                )
            time.sleep(self.options.poll_interval)

    def _check(self, name: str, state: ServableState, version: int) -> None:
        """Asks a version for known answers on every server; takes it out if one is wrong."""
        golden = read_golden(self.fleet.repository.version_path(name, version))
        for server in state.servers:
            try:
                self.fleet.by_address(server.address).check(name, version, golden)
            except CheckError as exc:
                withdrawn = self._withdraw(name, state, frozenset({version}))
                raise RolloutError(
                    f"version {version} of {name!r} does not answer as it should on "
                    f"{server.address}: {exc}; no label moved"
                    f"{', and it was taken out again' if withdrawn else ''}"
                ) from exc

    def _withdraw(self, name: str, state: ServableState, versions: frozenset[int]) -> bool:
        """Takes versions that are no good out of every server and of the file.

        Without a label they would still answer the calls that name none. Versions that a
        label points at somewhere stay.

        Returns:
            Whether anything was taken out.
        """
        labelled = {at for server in state.servers for at in server.labels.values()}
        before = state.recorded or ModelEntry()
        bad = versions - labelled - frozenset(before.labels.values())
        if not bad:
            return False
        restored = self.fleet.config_file.read()
        kept = [version for version in before.versions or () if version not in bad]
        if state.recorded is None:
            restored = without_entry(restored, name)
        else:
            entry = ModelEntry(versions=tuple(kept) or None, labels=before.labels)
            restored = with_entry(restored, name, entry, base_path=self._base_path(name))
        if not self.fleet.polled:
            for server in state.servers:
                rest = (server.present | set(server.labels.values())) - bad
                own = ModelEntry(versions=tuple(sorted(rest)), labels=server.labels)
                config = (
                    with_entry(restored, name, own, base_path=self._base_path(name))
                    if rest
                    else restored
                )
                try:
                    self.fleet.by_address(server.address).reload(config)
                except RolloutError as exc:
                    log.warning("could not take version %s out of %s: %s", bad, name, exc)
        self.fleet.config_file.write(restored)
        self._wait_until_gone(name, bad)
        return True

    def _wait_until_gone(self, name: str, versions: frozenset[int]) -> None:
        """Waits, within one deadline, until no server that answers holds these versions."""
        deadline = time.monotonic() + self.options.timeout
        for server in self.fleet.servers:
            try:
                while server.observe(name, ()).present & versions:
                    if time.monotonic() >= deadline:
                        log.warning("%s still holds version %s", server.address, min(versions))
                        break
                    time.sleep(self.options.poll_interval)
            except UnreachableError as exc:
                log.warning("cannot ask %s whether it let go: %s", server.address, exc)

    def _base_path(self, name: str) -> Path:
        return server_base_path(self.fleet.config_file.read(), self.fleet.repository, name)


class _Watch:
    """Looks at the servers again and again until each has done a step.

    Attributes:
        lost: Servers that no longer know what they were sent.
    """

    def __init__(self, fleet: Fleet, step: Step, state: ServableState, *, settled: float) -> None:
        self._fleet, self._step, self._settled = fleet, step, settled
        self._waiting = {server.address: server for server in state.servers}
        labels = (server.labels for server in state.servers)
        self._labels = set(step.entry.labels).union(*labels)
        self.lost: list[str] = []

    def look(self) -> dict[str, str]:
        """What each server that is not done has still to do; empty when all are done."""
        missing: dict[str, str] = {}
        for address, before in list(self._waiting.items()):
            try:
                now = self._fleet.by_address(address).observe(self._step.name, self._labels)
            except UnreachableError as exc:
                missing[address] = f"it does not answer: {exc}"
                continue
            reason = self._missing(before, now)
            if reason is None:
                del self._waiting[address]
            else:
                missing[address] = reason
        return missing

    def _missing(self, before: ServerState, now: ServerState) -> str | None:
        entry = self._step.entry
        match self._step.kind:
            case StepKind.LOAD:
                return self._missing_versions(before, now)
            case StepKind.LABEL:
                for label, at in sorted(entry.labels.items()):
                    if now.labels.get(label) != at:
                        self._lose(now.address)
                        return f"label {label!r} is at {now.labels.get(label, 'no version')}"
                return None
            case _:
                rest = sorted(now.present - frozenset(entry.versions or ()))
                return f"version {rest[0]} is not unloaded yet" if rest else None

    def _missing_versions(self, before: ServerState, now: ServerState) -> str | None:
        for version in sorted(self._step.available - now.available):
            reason = now.failed.get(version)
            if reason is None:
                if version not in now.busy:
                    self._lose(now.address)
                return f"version {version} is not AVAILABLE yet"
            if version in before.failed and time.monotonic() < self._settled:
                return f"version {version} failed before: {reason}"
            raise _LoadError(
                f"version {version} of {self._step.name!r} did not load on {now.address}: {reason}"
            )
        return None

    def _lose(self, address: str) -> None:
        """A server that is sent a reload knows of it at once; one that polls needs a while."""
        if not self._fleet.polled and time.monotonic() >= self._settled:
            self.lost.append(address)
