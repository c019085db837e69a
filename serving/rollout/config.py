"""Edits of the whole server configuration that touch one servable and nothing else."""

from pathlib import Path

from google.protobuf import text_format

from shortlist.clients.wire.messages import ModelConfig, ModelServerConfig
from shortlist.serving.errors import RepositoryError, RolloutError
from shortlist.serving.repository.files import write_atomically
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import ModelEntry, read_config
from shortlist.serving.rollout.state import Entry

__all__ = [
    "ConfigFile",
    "entry_of",
    "rolled_out_entry",
    "server_base_path",
    "with_entry",
    "without",
]


def entry_of(config: ModelServerConfig, name: str) -> Entry | None:
    """What a configuration says of one servable; None if it does not list it."""
    model = _find(config, name)
    if model is None:
        return None
    policy = model.model_version_policy
    versions = None
    if policy.WhichOneof("policy_choice") == "specific":
        versions = tuple(sorted(policy.specific.versions))
    return Entry(versions=versions, labels=dict(model.version_labels))


def with_entry(
    config: ModelServerConfig, name: str, entry: Entry, *, base_path: Path
) -> ModelServerConfig:
    """The same configuration with another entry for one servable.

    Args:
        config: Whole configuration; not changed.
        name: Model name; added to the list if it is not there.
        entry: Its versions and labels.
        base_path: Folder of the model, for a name that is added.
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


def server_base_path(config: ModelServerConfig, repository: ModelRepository, name: str) -> Path:
    """Base path of a model as servers see it, which in a container may be another than here.

    Args:
        config: Their configuration.
        repository: The repository as this machine sees it.
        name: Model name; where the configuration does not list it, it is looked for beside
            the repository's other models.
    """
    model = _find(config, name)
    if model is not None:
        return Path(model.base_path)
    for other in config.model_config_list.config:
        path = Path(other.base_path)
        if path.name == other.name and other.name in repository.models():
            return path.with_name(name)
    return repository.base_path(name).resolve()


def without(config: ModelServerConfig, name: str) -> ModelServerConfig:
    """The same configuration without one servable."""
    changed = ModelServerConfig()
    changed.model_config_list.SetInParent()
    for model in config.model_config_list.config:
        if model.name != name:
            changed.model_config_list.config.add().CopyFrom(model)
    return changed


def _find(config: ModelServerConfig, name: str) -> ModelConfig | None:
    for model in config.model_config_list.config:
        if model.name == name:
            found: ModelConfig = model
            return found
    return None


def rolled_out_entry(path: Path, repository: ModelRepository, name: str) -> ModelEntry | None:
    """What a rollout left in a configuration file for one model; None if there was none.

    A server that is started anew goes on with the versions and labels of the last rollout
    rather than with the newest version, which nobody has tried yet.

    Args:
        path: The configuration file; may be missing.
        repository: The model repository; versions that it no longer has are left out.
        name: Model name.

    Raises:
        RepositoryError: The file cannot be read, or a label's version is not there.
    """
    if not path.exists():
        return None
    entry = entry_of(read_config(path), name)
    if entry is None or not entry.versions or not entry.labels:
        return None
    published = repository.versions(name)
    for label, version in sorted(entry.labels.items()):
        if version not in published:
            raise RepositoryError(
                f"label {label!r} of {name!r} points at version {version} in {path}, but the "
                f"repository holds {', '.join(map(str, published)) or 'none'}; mend the file, or "
                "delete it to serve the newest"
            )
    return ModelEntry(
        name=name,
        base_path=repository.base_path(name),
        versions=tuple(version for version in entry.versions if version in published),
        labels=entry.labels,
    )


class ConfigFile:
    """The file that servers start from, or poll: the one place that knows all models.

    Servers cannot be asked for their configuration, and a reload replaces the whole of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> ModelServerConfig:
        """The whole configuration.

        Raises:
            RolloutError: There is no such file, or it holds no list of models.
        """
        try:
            config = read_config(self.path)
        except RepositoryError as exc:
            raise RolloutError(
                f"{exc}; a reload replaces the whole configuration, so name the file that the "
                "servers were started with: --config FILE"
            ) from exc
        if config.WhichOneof("config") == "custom_model_config":
            raise RolloutError(
                f"{self.path} holds a custom_model_config, which a reload cannot carry; "
                "use a model_config_list"
            )
        return config

    def entry(self, name: str) -> Entry | None:
        """What the file says of one servable."""
        return entry_of(self.read(), name)

    def write(self, config: ModelServerConfig) -> None:
        """Replaces the file; a server that polls it sees the old or the new, whole.

        Raises:
            RolloutError: The file cannot be written, for instance because the disk is full;
                the old one is as it was.
        """
        try:
            write_atomically(self.path, text_format.MessageToString(config))
        except OSError as exc:
            raise RolloutError(
                f"cannot write {self.path}: {exc.strerror}; it is unchanged. Make room, "
                "then give the same command again"
            ) from exc
