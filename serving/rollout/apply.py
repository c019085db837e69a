"""Apply rollouts: observe, plan, take the first step, and repeat until nothing is left.

Between two steps only servers and files hold state. So the next controller, on any machine,
can continue or revert what a killed one began.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shortlist.serving.errors import RepositoryError, RolloutError
from shortlist.serving.repository.files import file_lock
from shortlist.serving.repository.server_config import ModelEntry
from shortlist.serving.rollout.fleet import Fleet, Observation
from shortlist.serving.rollout.goals import WAYS_BACK, goals_for
from shortlist.serving.rollout.history import HISTORY_FILE, History, Recorder
from shortlist.serving.rollout.plan import Goal, Step, entry_for, plan, plan_all
from shortlist.serving.rollout.state import MANAGED_LABELS, ServableState
from shortlist.serving.rollout.steps import StepOptions, StepRunner, refuse_if_changed

__all__ = ["ApplyOptions", "Outcome", "apply", "lock_path", "preview"]

log = logging.getLogger(__name__)

MAX_ROUNDS = 12  # a goal takes at most four steps; more means that others keep undoing them


@dataclass(frozen=True, kw_only=True)
class ApplyOptions:
    """Options of a rollout.

    Attributes:
        step: Options of each step.
        skip_unreachable: Continue without servers that do not answer; they catch up from the
            configuration file. Rollback and abort always do.
        why: Reason, for the log.
        details: Further entries for the log, such as a judge's measurements.
    """

    step: StepOptions = field(default_factory=StepOptions)
    skip_unreachable: bool = False
    why: str = ""
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of a rollout.

    Attributes:
        name: Model name.
        steps: Steps taken, in order; empty if the goal was reached before.
        state: Final state.
        unreachable: Reason by address, for servers that were skipped.
        seconds: Duration.
    """

    name: str
    steps: tuple[Step, ...]
    state: ServableState
    unreachable: Mapping[str, str]
    seconds: float


def lock_path(fleet: Fleet) -> Path:
    """Return the lock of all rollouts of one configuration file.

    It lies in the repository, which controllers on several machines share; each of them may
    have its own copy of the file, as jobs in a cluster do.
    """
    root, config = fleet.repository.root.resolve(), fleet.config_file.path.resolve()
    which = config.relative_to(root) if config.is_relative_to(root) else config
    digest = hashlib.sha256(str(which).encode()).hexdigest()[:8]
    return root / f".rollout-{digest}.lock"


def preview(fleet: Fleet, name: str, action: str, version: int | None = None) -> list[Step]:
    """Return the steps that `apply` would take now.

    Raises:
        RolloutError: The action does not fit the current state, or the configuration file lacks
            a model that the servers hold.
    """
    fleet.require_listed(fleet.known_models() - {name})
    state = fleet.observe(name).state
    return plan_all(state, goals_for(action, state, version))


def apply(
    fleet: Fleet,
    name: str,
    action: str,
    version: int | None = None,
    *,
    options: ApplyOptions | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Outcome:
    """Apply one action to one servable, on all servers.

    Args:
        fleet: Servers, repository and configuration file.
        name: Model name.
        action: One of `shortlist.serving.rollout.goals.ACTIONS`.
        version: Version, for the actions that take one.
        options: Options of the rollout.
        on_step: Callback before each step.

    Raises:
        RolloutError: The action does not fit the current state, the configuration file lacks a
            model that the servers hold, a server is down or refuses, a version does not load
            or gives wrong answers, another process moved a label, or another rollout holds
            the lock. The message says what state that leaves and how to continue.
    """
    options = options or ApplyOptions()
    lock = lock_path(fleet)
    try:
        with file_lock(lock, timeout=options.step.lock_timeout, by="rollout"):
            return _Application(fleet, name, action, options, on_step).run(version)
    except RepositoryError as exc:
        raise RolloutError(str(exc)) from exc
    except OSError as exc:
        raise RolloutError(f"cannot lock {lock}: {exc.strerror}") from exc


class _Application:
    def __init__(
        self,
        fleet: Fleet,
        name: str,
        action: str,
        options: ApplyOptions,
        on_step: Callable[[Step], None],
    ) -> None:
        self.fleet, self.name, self.action = fleet, name, action
        self.options, self.on_step = options, on_step
        self.way_back = action in WAYS_BACK
        self.steps: list[Step] = []
        self.unreachable: dict[str, str] = {}
        self.goal_labels: dict[str, set[int]] = {}
        self.expected: dict[str, Mapping[str, int]] = {}
        self.recorded: ModelEntry | None = None

    def run(self, version: int | None) -> Outcome:
        started = time.monotonic()
        self.fleet.require_listed(self.fleet.known_models() - {self.name})
        first = self._observe()
        goals = goals_for(self.action, first, version)
        planned = plan_all(first, goals)
        self.expected = {server.address: server.labels for server in first.servers}
        self.recorded = first.recorded
        recorder = Recorder(
            History(self.fleet.repository.root / HISTORY_FILE),
            action=self.action,
            name=self.name,
            why=self.options.why,
            servers=[server.address for server in self.fleet.servers],
        )
        if planned:
            self._record(
                recorder,
                "begin",
                version=version,
                before=_summary(first),
                goal=[goal.why for goal in goals],
                **self.options.details,
            )
        try:
            for goal in goals:
                state = self._reach(goal, recorder)
        except (RolloutError, KeyboardInterrupt) as exc:
            reason = str(exc) or "interrupted"
            self._record(recorder, "failed", error=reason, steps=[str(step) for step in self.steps])
            raise
        seconds = time.monotonic() - started
        if planned:
            self._record(
                recorder,
                "done",
                after=_summary(state),
                steps=[str(step) for step in self.steps],
                seconds=round(seconds, 3),
                unreachable=dict(self.unreachable),
            )
        return Outcome(
            name=self.name,
            steps=tuple(self.steps),
            state=state,
            unreachable=dict(self.unreachable),
            seconds=seconds,
        )

    def _reach(self, goal: Goal, recorder: Recorder) -> ServableState:
        for label, at in goal.labels.items():
            self.goal_labels.setdefault(label, set()).add(at)
        runner = StepRunner(self.fleet, self.options.step, persist=self.way_back)
        for _ in range(MAX_ROUNDS):
            state = self._observe()
            self._refuse_if_moved(state)
            steps = plan(state, goal)
            if not steps:
                return state
            step = steps[0]
            self.on_step(step)
            if runner.run(step, state):
                self.steps.append(step)
                self._remember(step, state)
                self._record(recorder, "step", step=str(step))
        raise RolloutError(
            f"{self.name!r} did not settle after {MAX_ROUNDS} steps because another process keeps "
            "changing it; see `shortlist rollout status` and `shortlist rollout log`"
        )

    def _observe(self) -> ServableState:
        observation: Observation = self.fleet.observe(self.name)
        if observation.unreachable:
            if not (self.options.skip_unreachable or self.way_back):
                address, reason = next(iter(observation.unreachable.items()))
                raise RolloutError(
                    f"{len(observation.unreachable)} of {len(self.fleet.servers)} servers do not "
                    f"answer ({address}: {reason}); nothing is rolled forward past a server that "
                    "is down. Bring it back, or continue without it: --skip-unreachable"
                )
            for address, reason in observation.unreachable.items():
                if address not in self.unreachable:
                    log.warning("continuing without %s: %s", address, reason)
            self.unreachable.update(observation.unreachable)
        return observation.state

    def _remember(self, step: Step, state: ServableState) -> None:
        for server in state.servers:
            self.expected[server.address] = entry_for(step, server).labels
        self.recorded = step.entry

    def _refuse_if_moved(self, state: ServableState) -> None:
        """Stop if a label points at a version that neither we nor the file set."""
        recorded = state.recorded.labels if state.recorded else {}
        refuse_if_changed(self.fleet, self.name, self.recorded)
        for server in state.servers:
            for label in MANAGED_LABELS:
                at = server.labels.get(label)
                before = self.expected.get(server.address, {}).get(label)
                # A server that was down or restarted has what the file says.
                expected = {before, recorded.get(label), *self.goal_labels.get(label, ())}
                if at is not None and at not in expected:
                    raise RolloutError(
                        f"another process moved label {label!r} of {self.name!r} to version {at} "
                        f"on {server.address} during this rollout, which stopped here. See "
                        "`shortlist rollout status`, then repeat the command"
                    )

    def _record(self, recorder: Recorder, event: str, **details: object) -> None:
        try:
            recorder.record(event, **details)
        except RolloutError as exc:
            if event == "begin" and not self.way_back:
                raise
            # A full disk must not prevent a rollback.
            log.warning("could not log the event %r of this rollout: %s", event, exc)


def _summary(state: ServableState) -> dict[str, object]:
    return {
        "versions": sorted(state.present()),
        "labels": {server.address: dict(server.labels) for server in state.servers},
    }
