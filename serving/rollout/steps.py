"""Take one step: send a configuration to every server, wait, and record it."""

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
from shortlist.serving.rollout.lint import Severity
from shortlist.serving.rollout.plan import Step, StepKind, entry_for
from shortlist.serving.rollout.state import ServableState, ServerState

__all__ = ["StepOptions", "StepRunner", "refuse_if_changed"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """Times of one step, in seconds.

    Attributes:
        timeout: Timeout until every server has applied the step.
        poll_interval: Interval between two requests for a server's state.
        settle: Time in which a server may still report an earlier attempt to load as failed.
        lock_timeout: Timeout for another rollout to end.
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
    """A server failed to load a version."""


def refuse_if_changed(fleet: Fleet, name: str, expected: ModelEntry | None) -> None:
    """Stop if the file's entry is not the expected one.

    Raises:
        RolloutError: Another process changed the entry.
    """
    if fleet.config_file.entry(name) != expected:
        raise RolloutError(
            f"another process changed {name!r} in {fleet.config_file.path} during this rollout, "
            "which stopped here. See `shortlist rollout status`, then repeat the command"
        )


class StepRunner:
    """Takes steps on a fleet."""

    def __init__(self, fleet: Fleet, options: StepOptions, *, persist: bool) -> None:
        """Make a runner.

        Args:
            fleet: Servers, repository and configuration file.
            options: Times.
            persist: Whether to continue with the other servers if one refuses or is down,
                and to report it at the end; for rollback and abort.
        """
        self.fleet = fleet
        self.options = options
        self.persist = persist

    def run(self, step: Step, state: ServableState) -> bool:
        """Take one step from a state.

        Returns:
            Whether the step is complete; False if a server lost what it was sent, for example
            because it restarted, so that a new plan is needed.

        Raises:
            RolloutError: A server is down, refuses, or is not done in time; or a version does
                not load or gives wrong answers, and was removed again.
        """
        for version in step.check:
            self._check(step.name, state, version)
        self._config(step.name, step.entry)  # refuse a broken configuration before anything is sent
        if step.kind is StepKind.RECORD or self.fleet.polled:
            self._write(step, state)
        if step.kind is StepKind.RECORD:
            return True
        try:
            if self.fleet.polled:
                return self._wait(step, state)
            self._push(step, state)
            done = self._wait(step, state)
        except RolloutError as exc:
            all_or_none = self.fleet.all_or_none and step.kind is StepKind.LOAD
            if not isinstance(exc, _LoadError) and (self.persist or not all_or_none):
                raise
            good = frozenset.intersection(*(server.available for server in state.servers))
            self._withdraw(step.name, state, step.available - good)
            removed = "; it was removed again, and no label moved"
            if not isinstance(exc, _LoadError):
                removed = ". What was loaded was unloaded again, and no label moved"
            raise RolloutError(f"{exc}{removed}") from exc
        if done:
            # Last, so that a server that restarts in between starts from a good file.
            self._write(step, state)
        return done

    def _write(self, step: Step, state: ServableState) -> None:
        """Record the step, unless another process has changed the servable."""
        refuse_if_changed(self.fleet, step.name, state.recorded)
        self.fleet.config_file.write(self._config(step.name, step.entry))

    def _config(self, name: str, entry: ModelEntry) -> ModelServerConfig:
        """Return the whole configuration, other models as the file has them now."""
        current = self.fleet.config_file.read()
        config = with_entry(current, name, entry, base_path=self._base_path(name))
        findings = self.fleet.lint(config, current)
        errors = [finding for finding in findings if finding.severity is Severity.ERROR]
        own = [finding for finding in errors if finding.model in (name, None)]
        if own:
            raise RolloutError(f"the configuration would break the service: {own[0]}")
        for finding in errors:
            log.warning("in %s: %s", self.fleet.config_file.path, finding)
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
                f"{address} did not apply the step '{step}': {reason}{others}. Repeat the command "
                "to continue, or use `shortlist rollback`"
            ) from reason

    def _wait(self, step: Step, state: ServableState) -> bool:
        """Wait until every server has applied the step; one deadline for all."""
        watch = _Watch(self.fleet, step, state, settled=time.monotonic() + self.options.settle)
        deadline = time.monotonic() + self.options.timeout
        while True:
            missing = watch.look()
            if not missing:
                return True
            if watch.lost:
                log.warning("servers lost what they were sent: %s", ", ".join(watch.lost))
                return False
            if time.monotonic() >= deadline:
                address, reason = next(iter(missing.items()))
                raise RolloutError(
                    f"after {self.options.timeout:g} s {len(missing)} of {len(state.servers)} "
                    f"servers had not applied '{step}' ({address}: {reason}); repeat the "
                    "command to continue waiting, or use `shortlist abort`"
                )
            time.sleep(self.options.poll_interval)

    def _check(self, name: str, state: ServableState, version: int) -> None:
        """Check a version's golden queries on every server; remove it if an answer is wrong."""
        golden = read_golden(self.fleet.repository.version_path(name, version))
        for server in state.servers:
            try:
                self.fleet.by_address(server.address).check(name, version, golden)
            except CheckError as exc:
                withdrawn = self._withdraw(name, state, frozenset({version}))
                raise RolloutError(
                    f"version {version} of {name!r} failed its check on {server.address}: "
                    f"{exc}; no label moved{', and it was removed again' if withdrawn else ''}"
                ) from exc

    def _withdraw(self, name: str, state: ServableState, versions: frozenset[int]) -> bool:
        """Remove bad versions from every server and from the file.

        Even without a label they would answer calls that name none. Versions that a label
        points at stay.

        Returns:
            Whether any version was removed.
        """
        labelled = {at for server in state.servers for at in server.labels.values()}
        before = state.recorded or ModelEntry()
        bad = versions - labelled - frozenset(before.labels.values())
        if not bad:
            return False
        restored = self.fleet.config_file.read()
        good = tuple(version for version in before.versions or () if version not in bad)
        if state.recorded is None:
            restored = without_entry(restored, name)
        else:
            entry = ModelEntry(versions=good or None, labels=before.labels)
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
                    log.warning("could not remove versions %s of %s: %s", sorted(bad), name, exc)
        self.fleet.config_file.write(restored)
        self._wait_until_gone(name, bad)
        return True

    def _wait_until_gone(self, name: str, versions: frozenset[int]) -> None:
        """Wait until no reachable server holds these versions; one deadline for all."""
        deadline = time.monotonic() + self.options.timeout
        for server in self.fleet.servers:
            try:
                while server.observe(name, ()).present & versions:
                    if time.monotonic() >= deadline:
                        log.warning("%s still holds version %s", server.address, min(versions))
                        break
                    time.sleep(self.options.poll_interval)
            except UnreachableError as exc:
                log.warning(
                    "%s does not answer, so its versions are unknown: %s", server.address, exc
                )

    def _base_path(self, name: str) -> Path:
        return server_base_path(self.fleet.config_file.read(), self.fleet.repository, name)


class _Watch:
    """Polls the servers until each has applied a step.

    Attributes:
        lost: Servers that lost what they were sent.
    """

    def __init__(self, fleet: Fleet, step: Step, state: ServableState, *, settled: float) -> None:
        self._fleet, self._step, self._settled = fleet, step, settled
        self._waiting = {server.address: server for server in state.servers}
        labels = (server.labels for server in state.servers)
        self._labels = set(step.entry.labels).union(*labels)
        self.lost: list[str] = []

    def look(self) -> dict[str, str]:
        """Return what is missing, by address; empty if all servers are done."""
        missing: dict[str, str] = {}
        for address, before in list(self._waiting.items()):
            try:
                now = self._fleet.by_address(address).observe(self._step.name, self._labels)
            except UnreachableError as exc:
                missing[address] = f"does not answer: {exc}"
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
                removed = sorted((now.labels.keys() | now.dangling) - entry.labels.keys())
                return f"label {removed[0]!r} is not removed yet" if removed else None
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
        """Note a lost server: a reload takes effect at once, while polling takes time."""
        if not self._fleet.polled and time.monotonic() >= self._settled:
            self.lost.append(address)
