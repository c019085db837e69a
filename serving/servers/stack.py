"""The long-running containers: `make up`, `make down`, `make logs`, `make publish`."""

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from shortlist.clients.errors import ShortlistError
from shortlist.serving.errors import ModelServerError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.servers import compose

__all__ = ["Stack", "main"]

log = logging.getLogger(__name__)

PROJECT = "shortlist"
PROFILES = ("scann", "monitoring", "tls")
CREDENTIALS = Path("proxy/credentials")  # beside compose.yaml
POLL_INTERVAL = 0.5  # seconds
LOG_TAIL_LINES = 20


class Stack:
    """The containers of `compose.yaml` for one model repository.

    Attributes:
        repository: The model repository.
        profiles: Profiles beyond the stock server.
        project: Name of the Compose project.
        environment: Variables of `compose.yaml`; they win over what follows from the repository.
        overrides: More Compose files, which win over `compose.yaml`.
    """

    def __init__(
        self,
        repository: Path,
        *,
        profiles: Sequence[str] = (),
        project: str = PROJECT,
        environment: Mapping[str, str] = os.environ,
        overrides: Sequence[Path] = (),
    ) -> None:
        unknown = sorted(set(profiles) - set(PROFILES))
        if unknown:
            raise ValueError(f"no profile {unknown[0]!r}; there are: {', '.join(PROFILES)}")
        self.repository = repository
        self.profiles = tuple(profiles)
        self.project = project
        self.environment = environment
        self.overrides = tuple(overrides)
        self._file = compose.compose_file()

    def up(self, *, timeout: float) -> None:
        """Starts the containers and returns when every model is AVAILABLE.

        Raises:
            ShortlistError: There is nothing to serve, a container failed, or it took too long;
                the message has the end of its output.
        """
        for name in compose.write_missing_models(ModelRepository(self.repository)):
            _say(f"{name}: its newest version is `stable` now")
        if "tls" in self.profiles:
            self._make_credentials()
        self._run("up", "--detach", "--remove-orphans")
        self._wait_until_healthy(timeout)

    def down(self, *, measurements: bool = False) -> None:
        """Stops and removes the containers and their network.

        Args:
            measurements: Remove what Prometheus and Grafana stored as well.

        Raises:
            ModelServerError: Compose failed.
        """
        volumes = ["--volumes"] if measurements else []
        self._run("down", "--remove-orphans", *volumes, all_profiles=True)

    def logs(self, *, follow: bool) -> None:
        """Shows what the containers wrote.

        Raises:
            ModelServerError: Compose failed.
        """
        self._run("logs", *(["--follow"] if follow else []), "--tail=200", all_profiles=True)

    def publish(self, data: str, flags: Sequence[str]) -> None:
        """Trains, gates and publishes in a container.

        Args:
            data: As `shortlist export --data` takes it; a path is mounted.
            flags: More of that command's flags.

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
        folder = Path(self.environment.get("SHORTLIST_TLS_DIR") or self._file.parent / CREDENTIALS)
        script = self._file.parent / "proxy/make_credentials.sh"
        done = subprocess.run(["bash", str(script), str(folder)], check=False)
        if done.returncode != 0:
            raise ModelServerError(
                f"no certificate and token in {folder}; put cert.pem, key.pem and tokens.map there"
            )

    def _command(self, profiles: Sequence[str]) -> list[str]:
        return [
            *compose.compose_command(),
            *(f"--file={path}" for path in (self._file, *self.overrides)),
            f"--project-name={self.project}",
            *(f"--profile={profile}" for profile in profiles),
        ]

    def _environment(self) -> dict[str, str]:
        # What the caller set wins over what we derive.
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
                name = (ended or sorted(waiting))[0]
                raise ModelServerError(
                    f"{name} is {waiting[name]}"
                    + ("" if ended else f" after {timeout:g} s")
                    + f"; the end of its output:\n{self._tail(name)}"
                )
            time.sleep(POLL_INTERVAL)

    def _states(self) -> dict[str, str]:
        """State of each container of the project: `ready`, or what it is instead."""
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

    def _tail(self, name: str) -> str:
        done = subprocess.run(
            ["docker", "logs", f"--tail={LOG_TAIL_LINES}", name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return "\n".join(f"  {line}" for line in done.stdout.splitlines())

    def _docker(self, *arguments: str) -> str:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ModelServerError(f"docker {arguments[0]}: {done.stderr.strip()}")
        return done.stdout


_LABEL = "com.docker.compose.project"


def _say(message: str) -> None:
    sys.stderr.write(f"shortlist: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m shortlist.serving.servers.stack",
        description="Runs TensorFlow Serving and what belongs to it in containers. Of publish: "
        "flags of `shortlist export` may follow after --.",
        epilog="example:\n  python -m shortlist.serving.servers.stack up --repository models",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=("up", "down", "logs", "publish"))
    parser.add_argument("--repository", type=Path, default=Path("models"), metavar="DIR")
    parser.add_argument(
        "--profiles", default="", metavar="LIST", help=f"comma-separated, of {', '.join(PROFILES)}"
    )
    parser.add_argument(
        "--override",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="one more Compose file, which wins over docker/compose.yaml",
    )
    parser.add_argument("--data", default="sample", help="what to train on (default: sample)")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds to be ready in")
    parser.add_argument("--follow", action="store_true", help="of logs: wait for more")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one action; 0 on success, 1 on an expected failure, 2 on wrong usage."""
    words = list(sys.argv[1:] if argv is None else argv)
    # What follows -- is for `shortlist export`; argparse would want it beside the action.
    split = words.index("--") if "--" in words else len(words)
    args, flags = _parser().parse_args(words[:split]), words[split + 1 :]
    logging.basicConfig(level=logging.WARNING, format="shortlist: %(message)s")
    try:
        profiles = [name for name in args.profiles.split(",") if name]
        stack = Stack(args.repository, profiles=profiles, overrides=args.override)
        if args.action == "up":
            stack.up(timeout=args.timeout)
            _say("up; `shortlist status` tells what is served")
        elif args.action == "down":
            stack.down()
        elif args.action == "logs":
            stack.logs(follow=args.follow)
        else:
            stack.publish(args.data, flags)
    except (ShortlistError, ValueError) as exc:
        _say(f"error: {exc}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
