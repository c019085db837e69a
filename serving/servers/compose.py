"""The containers of `docker/compose.yaml`: command lines, variables and configurations.

The only module that knows Docker Compose, both as `docker compose` and as `docker-compose` 1.29.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from google.protobuf import text_format

from shortlist.clients import contract
from shortlist.clients.wire.messages import ModelServerConfig
from shortlist.serving.errors import ModelServerError, RepositoryError
from shortlist.serving.repository.files import write_atomically
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.selection import ServableFound, find_servables
from shortlist.serving.repository.server_config import STABLE, ModelEntry, read_config, with_entry
from shortlist.serving.servers.docker_files import COMPOSE_FILE, docker_folder
from shortlist.serving.servers.options import ServerOptions

__all__ = [
    "CONFIG_FOLDER",
    "SCANN_CONFIG",
    "SHARD_CONFIG",
    "STOCK_CONFIG",
    "check_engine",
    "compose_command",
    "foreground_command",
    "help_command",
    "project_name",
    "project_variables",
    "remove_command",
    "write_missing_models",
]

# Inside the repository, so that one mount covers both; hidden, so that no poller and no listing
# takes it for a model; apart from the file that `shortlist serve` rewrites at each start.
CONFIG_FOLDER = Path(".serving/compose")
STOCK_CONFIG = "models.config"
SCANN_CONFIG = "scann.config"
SHARD_CONFIG = "shard1.config"


def _docker() -> str:
    docker = shutil.which("docker")
    if docker is None:
        raise ModelServerError(
            "there is no docker on PATH; install Docker, or use --server embedded"
        )
    return docker


@cache
def compose_command() -> tuple[str, ...]:
    """Return the command that runs Docker Compose.

    Raises:
        ModelServerError: Docker or its Compose is not installed.
    """
    docker = _docker()
    plugin = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return (docker, "compose")
    standalone = shutil.which("docker-compose")
    if standalone is None:
        raise ModelServerError(
            "docker has no compose plugin; install the docker-compose-plugin or docker-compose, "
            "or use --server embedded"
        )
    return (standalone,)


def check_engine() -> None:
    """Check that a Docker engine answers; Compose itself would print a traceback.

    Raises:
        ModelServerError: Docker is not installed, or no engine answers.
    """
    docker = _docker()
    done = subprocess.run([docker, "version"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or ["docker version failed"]
        raise ModelServerError(
            f"no Docker engine answers ({reason[0]}); start one, or name it in DOCKER_HOST, "
            "or use --server embedded"
        )


def help_command(image: str) -> list[str]:
    """Return the command line that prints the usage of an image's server."""
    entrypoint = "--entrypoint=tensorflow_model_server"
    return [_docker(), "run", "--rm", "--network=none", entrypoint, image, "--help"]


def project_variables(repository: Path) -> dict[str, str]:
    """Return the variables of `compose.yaml` that depend on the repository and the caller.

    The repository's owner publishes into it; the caller owns the proxy's key.
    """
    root = repository.resolve()
    variables = {"SHORTLIST_REPOSITORY": str(root)}
    if root.exists():
        owner = root.stat()
        variables["SHORTLIST_PUBLISHER"] = f"{owner.st_uid}:{owner.st_gid}"
    if os.getuid() != 0:  # root gives the key to the proxy's own user instead
        variables["SHORTLIST_PROXY_USER"] = f"{os.getuid()}:{os.getgid()}"
    return variables


def write_missing_models(
    repository: ModelRepository, *, sharded: bool = False, request_log: str | None = None
) -> list[str]:
    """Add models that no configuration lists yet, with their newest version as `stable`.

    Models with ScaNN's ops go to the ScaNN server's configuration, all others to the stock
    server's. Existing entries are left to rollouts.

    Args:
        repository: Model repository.
        sharded: Whether odd shards go to a server of their own.
        request_log: Folder for the request logs of added models; `None` to log none.

    Returns:
        Names of the added models.

    Raises:
        RepositoryError: The repository is empty or has no odd shard for its server, or a
            configuration cannot be read or written.
    """
    servables = find_servables(repository)
    by_file: dict[str, list[ServableFound]] = {STOCK_CONFIG: [], SCANN_CONFIG: []}
    if sharded:
        by_file[SHARD_CONFIG] = []
    for servable in servables:
        shard = contract.parse_shard(servable.name)
        odd = sharded and shard is not None and shard[1] % 2 == 1
        file = SHARD_CONFIG if odd else STOCK_CONFIG
        by_file[SCANN_CONFIG if servable.custom_ops else file].append(servable)
    if sharded and not by_file[SHARD_CONFIG]:
        raise RepositoryError(
            f"{repository.root} has no shards for the profile sharded; publish some with "
            "shortlist export --shards 2"
        )
    folder = repository.root.resolve() / CONFIG_FOLDER
    added: list[str] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, chosen in by_file.items():
            added += _add_missing(folder / name, chosen, request_log)
    except OSError as exc:
        raise RepositoryError(f"cannot write into {folder}: {exc.strerror}") from exc
    return added


def _add_missing(
    path: Path, servables: Sequence[ServableFound], request_log: str | None
) -> list[str]:
    config = read_config(path) if path.exists() else ModelServerConfig()
    known = {model.name for model in config.model_config_list.config}
    missing = [servable for servable in servables if servable.name not in known]
    if missing:
        for servable in missing:
            entry = ModelEntry(versions=(servable.version,), labels={STABLE: servable.version})
            base_path = servable.base_path.resolve()
            config = with_entry(config, servable.name, entry, base_path=base_path)
        added = {servable.name for servable in missing}
        for model in config.model_config_list.config if request_log else ():
            if model.name in added:
                collector = model.logging_config.log_collector_config
                collector.filename_prefix = f"{request_log}/{model.name}"
                model.logging_config.sampling_config.sampling_rate = 1.0
        write_atomically(path, text_format.MessageToString(config))
    return [servable.name for servable in missing]


@dataclass(frozen=True, kw_only=True)
class _Foreground:
    """Files of a server in the foreground, next to its configuration.

    Attributes:
        variables: `--env-file` of Compose.
        override: Second Compose file: the command, and no restarts.
    """

    variables: Path
    override: Path


def foreground_command(options: ServerOptions, flags: Sequence[str]) -> list[str]:
    """Return the command line that runs `compose.yaml`'s stock server in the foreground.

    Writes two small files next to the configuration.

    Args:
        options: Ports, repository and image.
        flags: Command line of the server in the container.

    Raises:
        ModelServerError: Docker or its Compose is missing, or the files cannot be written.
    """
    command = compose_command()
    check_engine()
    files = _foreground_files(options)
    try:
        _write_foreground_files(files, options, flags)
    except OSError as exc:
        raise ModelServerError(
            f"cannot write {exc.filename}: {exc.strerror}; the container needs its settings there"
        ) from exc
    return [
        *_project(command, options),
        "up",
        "--no-color",
        "--no-log-prefix",
        "--abort-on-container-exit",
        "--exit-code-from=serving",
        "serving",
    ]


def _foreground_variables(options: ServerOptions) -> dict[str, str]:
    return project_variables(options.repository) | {
        "SHORTLIST_SERVING_IMAGE": options.image,
        "SHORTLIST_BIND": contract.DEFAULT_HOST,
        "SHORTLIST_GRPC_PORT": str(options.grpc_port),
        "SHORTLIST_REST_PORT": str(options.rest_port),
    }


def _write_foreground_files(
    files: _Foreground, options: ServerOptions, flags: Sequence[str]
) -> None:
    variables = _foreground_variables(options)
    # JSON is valid YAML. A server that fails should end, not restart.
    serving: dict[str, object] = {"restart": "no", "command": list(flags)}
    config_folder = options.model_config_file.parent.resolve()
    if not config_folder.is_relative_to(options.repository.resolve()):
        serving["volumes"] = [f"{config_folder}:{config_folder}:ro"]
    override = {"services": {"serving": serving}}
    config_folder.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{name}={value}\n" for name, value in variables.items())
    files.variables.write_text(text, encoding="utf-8")
    files.override.write_text(json.dumps(override, indent=1) + "\n", encoding="utf-8")


def remove_command(options: ServerOptions) -> list[str]:
    """Return the command line that removes what `foreground_command` started.

    Raises:
        ModelServerError: Docker or its Compose is missing.
    """
    return [*_project(compose_command(), options), "down", "--volumes", "--timeout=5"]


def _project(command: Sequence[str], options: ServerOptions) -> list[str]:
    files = _foreground_files(options)
    # Compose prefers the environment to --env-file, so the caller's values are unset.
    unset = [word for name in sorted(_foreground_variables(options)) for word in ("-u", name)]
    return [
        "env",
        *unset,
        *command,
        f"--file={docker_folder() / COMPOSE_FILE}",
        f"--file={files.override}",
        f"--env-file={files.variables}",
        f"--project-name={project_name(options)}",
    ]


def project_name(options: ServerOptions) -> str:
    """Return the project name, unique per machine because ports are."""
    return f"shortlist-{options.grpc_port}-{options.rest_port}"


def _foreground_files(options: ServerOptions) -> _Foreground:
    folder = options.model_config_file.parent
    stem = project_name(options)
    return _Foreground(variables=folder / f"{stem}.env", override=folder / f"{stem}.json")
