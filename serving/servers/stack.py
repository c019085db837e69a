"""The long-running containers of `shortlist stack`."""

import json
import logging
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from shortlist.serving.errors import LoadError, ModelServerError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.servers import compose
from shortlist.serving.servers.docker_files import COMPOSE_FILE, INSTALLED, docker_folder
from shortlist.serving.servers.output import load_failures

__all__ = ["Stack"]

log = logging.getLogger(__name__)

PROJECT = "shortlist"
PROFILES = ("scann", "sharded", "monitoring", "tls")
CREDENTIALS = Path("proxy/credentials")  # next to compose.yaml
POLL_INTERVAL = 0.5  # seconds
LOG_LINES = 1000  # read
TAIL_LINES = 20  # shown


class Stack:
    """The containers of `compose.yaml` for one model repository.

    Attributes:
        repository: The model repository.
        profiles: Profiles beyond the stock server.
        project: Name of the Compose project.
        environment: Variables of `compose.yaml`; they override those derived from the repository.
        overrides: Compose files that override `compose.yaml`.
        folder: Folder with `compose.yaml` and what it mounts.
    """

    def __init__(
        self,
        repository: Path,
        *,
        profiles: Sequence[str] = (),
        project: str = PROJECT,
        environment: Mapping[str, str] = os.environ,
        overrides: Sequence[Path] = (),
        folder: Path | None = None,
    ) -> None:
        unknown = sorted(set(profiles) - set(PROFILES))
        if unknown:
            raise ValueError(f"no profile {unknown[0]!r}; there are: {', '.join(PROFILES)}")
        self.repository = repository
        self.profiles = tuple(profiles)
        self.project = project
        self.environment = environment
        self.overrides = tuple(overrides)
        self.folder = docker_folder() if folder is None else folder
        if not (self.folder / COMPOSE_FILE).is_file():
            raise ModelServerError(
                f"no {COMPOSE_FILE} in {self.folder}; write it with: "
                f"shortlist docker init {self.folder}"
            )

    def up(self, *, timeout: float) -> None:
        """Start the containers and wait until every model is AVAILABLE.

        Raises:
            ShortlistError: There is nothing to serve, or a container failed or was not ready in
                time; the message holds the end of its output.
        """
        for name in compose.write_missing_models(
            ModelRepository(self.repository),
            sharded="sharded" in self.profiles,
            request_log=self.environment.get("SHORTLIST_REQUEST_LOG"),
        ):
            log.warning("%s: its newest version is now `stable`", name)
        if "tls" in self.profiles:
            self._make_credentials()
        self._run("up", "--detach", "--remove-orphans")
        self._wait_until_healthy(timeout)

    def down(self, *, measurements: bool = False) -> None:
        """Stop and remove the containers and their network.

        Args:
            measurements: Whether to delete the data of Prometheus and Grafana, too.

        Raises:
            ModelServerError: Compose failed.
        """
        volumes = ["--volumes"] if measurements else []
        self._run("down", "--remove-orphans", *volumes, all_profiles=True)

    def logs(self, *, follow: bool) -> None:
        """Show the output of the containers.

        Raises:
            ModelServerError: Compose failed.
        """
        self._run("logs", *(["--follow"] if follow else []), "--tail=200", all_profiles=True)

    def publish(self, data: str, flags: Sequence[str]) -> None:
        """Train, run the gates and publish in a container.

        Args:
            data: Value of `shortlist export --data`; a path is mounted.
            flags: Further flags of that command.

        Raises:
            ModelServerError: The export failed.
        """
        self.repository.mkdir(parents=True, exist_ok=True)
        root = str(self.repository.resolve())
        mount: list[str] = []
        if Path(data).exists():
            data = str(Path(data).resolve())
            mount = [f"--volume={data}:{data}:ro"]
        command = ["export", "--repository", root, "--data", data, *flags]
        self._run("run", "--rm", *mount, "export", *command, more_profiles=("export",))

    def _make_credentials(self) -> None:
        configured = self.environment.get("SHORTLIST_TLS_DIR")
        if not configured and self.folder == INSTALLED:
            raise ModelServerError(
                "the profile tls needs a folder for its certificate: run `shortlist docker init "
                "docker` and add --docker docker, or name one in SHORTLIST_TLS_DIR"
            )
        folder = Path(configured or self.folder / CREDENTIALS)
        script = self.folder / "proxy/make_credentials.sh"
        done = subprocess.run(
            ["bash", str(script), str(folder)], env=self._environment(), check=False
        )
        if done.returncode != 0:
            raise ModelServerError(
                f"no certificate and token in {folder}; put cert.pem, key.pem and tokens.map there"
            )

    def _command(self, profiles: Sequence[str]) -> list[str]:
        return [
            *compose.compose_command(),
            *(f"--file={path}" for path in (self.folder / COMPOSE_FILE, *self.overrides)),
            f"--project-name={self.project}",
            *(f"--profile={profile}" for profile in profiles),
        ]

    def _environment(self) -> dict[str, str]:
        return compose.project_variables(self.repository) | dict(self.environment)

    def _run(
        self, *arguments: str, all_profiles: bool = False, more_profiles: Sequence[str] = ()
    ) -> None:
        compose.check_engine()
        profiles = (*PROFILES, "export") if all_profiles else (*self.profiles, *more_profiles)
        done = subprocess.run(
            [*self._command(profiles), *arguments], env=self._environment(), check=False
        )
        if done.returncode != 0:
            raise ModelServerError(
                f"docker compose {arguments[0]} ended with status {done.returncode}; "
                "its output is above"
            )

    def _wait_until_healthy(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            states = self._states()
            waiting = {name: state for name, state in states.items() if state != "ready"}
            if not waiting:
                return
            ended = [name for name, state in waiting.items() if state in ("exited", "restarting")]
            if ended or time.monotonic() >= deadline:
                late = "" if ended else f" after {timeout:g} s"
                raise ModelServerError(
                    "\n".join(
                        f"{name} is {waiting[name]}{late}{self._reason(name)}"
                        for name in ended or sorted(waiting)
                    )
                )
            time.sleep(POLL_INTERVAL)

    def _states(self) -> dict[str, str]:
        """Return the state of each container of the project; `ready` if it is."""
        listed = self._docker("ps", "--all", "--quiet", f"--filter=label={_LABEL}={self.project}")
        if not listed.split():
            return {"the stack": "without containers"}
        states: dict[str, str] = {}
        for container in json.loads(self._docker("inspect", *listed.split())):
            state = container["State"]
            health = state.get("Health", {}).get("Status", "healthy")
            ready = state["Status"] == "running" and health == "healthy"
            name = str(container["Name"]).lstrip("/")
            states[name] = (
                "ready" if ready else health if state["Status"] == "running" else state["Status"]
            )
        return states

    def _reason(self, name: str) -> str:
        """Return the versions that a container did not load, or the end of its output."""
        done = subprocess.run(
            ["docker", "logs", f"--tail={LOG_LINES}", name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        lines = done.stdout.splitlines()
        failures = load_failures(lines)
        if failures:
            return str(LoadError(": it did not load", failures))
        return "\n".join(
            ["; the end of its output:", *(f"  {line}" for line in lines[-TAIL_LINES:])]
        )

    def _docker(self, *arguments: str) -> str:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ModelServerError(f"docker {arguments[0]}: {done.stderr.strip()}")
        return done.stdout


_LABEL = "com.docker.compose.project"
