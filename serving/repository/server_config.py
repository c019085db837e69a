"""The model server's configuration: `ModelServerConfig` in text form, read, edited and written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from google.protobuf import text_format

from shortlist.clients.wire.messages import LoggingConfig, ModelConfig, ModelServerConfig
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.files import write_atomically
from shortlist.serving.repository.local import ModelRepository

__all__ = [
    "CONFIG_FILE",
    "STABLE",
    "ModelEntry",
    "entry_of",
    "last_entry",
    "read_config",
    "render_config",
    "request_logs",
    "server_base_path",
    "with_entry",
    "without_entry",
    "write_config",
]

# Below the repository's root; hidden, so that no poller and no listing takes it for a model.
CONFIG_FILE: Final = Path(".serving/models.config")
STABLE: Final = "stable"  # label of the version that users get


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """Versions and labels of one model in the configuration.

    Attributes:
        versions: Versions to serve, sorted; `None` if the server chooses (the newest, or all).
        labels: Version by label.
    """

    versions: tuple[int, ...] | None = None
    labels: Mapping[str, int] = field(default_factory=dict)


def render_config(
    root: Path,
    entries: Mapping[str, ModelEntry],
    logs: Mapping[str, LoggingConfig] = MappingProxyType({}),
) -> str:
    """Return a configuration in protobuf's text form, as `--model_config_file` takes it.

    Args:
        root: Folder that holds the models' base paths.
        entries: Versions and labels by model name.
        logs: Request logs by model name.

    Raises:
        ValueError: A label points at a version that is not served.
    """
    config = ModelServerConfig()
    for name, entry in entries.items():
        dangling = set(entry.labels.values()) - set(entry.versions or entry.labels.values())
        if dangling:
            raise ValueError(
                f"a label of {name!r} points at version {min(dangling)}, which is not among the "
                f"versions to serve: {', '.join(map(str, entry.versions or ()))}"
            )
        # The server refuses relative base paths.
        config = with_entry(config, name, entry, base_path=(root / name).resolve())
    for model in config.model_config_list.config:
        if model.name in logs:
            model.logging_config.CopyFrom(logs[model.name])
    return text_format.MessageToString(config)


def write_config(
    path: Path,
    root: Path,
    entries: Mapping[str, ModelEntry],
    logs: Mapping[str, LoggingConfig] = MappingProxyType({}),
) -> None:
    """Replace a configuration file; a server that polls it sees the old or the new, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, render_config(root, entries, logs))


def request_logs(path: Path) -> dict[str, LoggingConfig]:
    """Return the request logs in a configuration file, by model name; none without a file.

    Raises:
        RepositoryError: The file cannot be read.
    """
    if not path.exists():
        return {}
    models = read_config(path).model_config_list.config
    return {
        model.name: model.logging_config for model in models if model.HasField("logging_config")
    }


def read_config(path: Path) -> ModelServerConfig:
    """Return the configuration in a file.

    Raises:
        RepositoryError: The file is missing or is not a `ModelServerConfig`.
    """
    try:
        config: ModelServerConfig = text_format.Parse(
            path.read_text(encoding="utf-8"), ModelServerConfig()
        )
    except OSError as exc:
        raise RepositoryError(f"cannot read {path}: {exc.strerror}") from exc
    except (text_format.ParseError, UnicodeDecodeError) as exc:
        raise RepositoryError(f"{path} is not a model server configuration: {exc}") from exc
    return config


def entry_of(config: ModelServerConfig, name: str) -> ModelEntry | None:
    """Return a model's entry, or `None` if the configuration does not list the model."""
    model = _find(config, name)
    if model is None:
        return None
    policy = model.model_version_policy
    versions = None
    if policy.WhichOneof("policy_choice") == "specific":
        versions = tuple(sorted(policy.specific.versions))
    return ModelEntry(versions=versions, labels=dict(model.version_labels))


def with_entry(
    config: ModelServerConfig, name: str, entry: ModelEntry, *, base_path: Path
) -> ModelServerConfig:
    """Return the configuration with another entry for one model.

    Args:
        config: Whole configuration; not changed.
        name: Model name; added to the list if it is not there.
        entry: Versions and labels of the model.
        base_path: Folder of the model, if it is added.
    """
    changed = ModelServerConfig()
    changed.CopyFrom(config)
    model = _find(changed, name)
    if model is None:
        model = changed.model_config_list.config.add()
        model.name = name
        model.base_path = str(base_path)
        model.model_platform = "tensorflow"
    if entry.versions is None:
        model.ClearField("model_version_policy")
    else:
        del model.model_version_policy.specific.versions[:]
        model.model_version_policy.specific.versions.extend(entry.versions)
    model.ClearField("version_labels")
    for label, version in entry.labels.items():
        model.version_labels[label] = version
    return changed


def without_entry(config: ModelServerConfig, name: str) -> ModelServerConfig:
    """Return the configuration without one model."""
    changed = ModelServerConfig()
    changed.model_config_list.SetInParent()
    for model in config.model_config_list.config:
        if model.name != name:
            changed.model_config_list.config.add().CopyFrom(model)
    return changed


def server_base_path(config: ModelServerConfig, repository: ModelRepository, name: str) -> Path:
    """Return a model's base path as servers see it, which differs in a container.

    Args:
        config: The servers' configuration.
        repository: The repository as this machine sees it.
        name: Model name; a model that is not listed belongs next to the repository's others.
    """
    model = _find(config, name)
    if model is not None:
        return Path(model.base_path)
    for other in config.model_config_list.config:
        path = Path(other.base_path)
        if path.name == other.name and other.name in repository.models():
            return path.with_name(name)
    return repository.base_path(name).resolve()


def _find(config: ModelServerConfig, name: str) -> ModelConfig | None:
    return next((model for model in config.model_config_list.config if model.name == name), None)


def last_entry(path: Path, repository: ModelRepository, name: str) -> ModelEntry | None:
    """Return what the last rollout left in a configuration file, or `None` if there was none.

    A restarted server continues with the versions and labels of the last rollout rather than
    with the newest version, which is untested.

    Args:
        path: The configuration file; may be missing.
        repository: The model repository; versions that it no longer has are left out.
        name: Model name.

    Raises:
        RepositoryError: The file cannot be read, or a label's version is not in the repository.
    """
    entry = entry_of(read_config(path), name) if path.exists() else None
    if entry is None or not entry.versions or not entry.labels:
        return None
    published = repository.versions(name)
    for label, version in sorted(entry.labels.items()):
        if version not in published:
            raise RepositoryError(
                f"label {label!r} of {name!r} points at version {version} in {path}, but the "
                f"repository holds {', '.join(map(str, published)) or 'none'}; fix the file, or "
                "delete it to serve the newest"
            )
    versions = tuple(version for version in entry.versions if version in published)
    return ModelEntry(versions=versions, labels=entry.labels)
