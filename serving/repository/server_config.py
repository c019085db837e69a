"""The model server's configuration: `ModelServerConfig` in text form, read and written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format

from shortlist.clients.wire.messages import ModelServerConfig
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.files import write_atomically

__all__ = ["CONFIG_FILE", "ModelEntry", "read_config", "render_config", "write_config"]

# Below the repository's root; hidden, so that no poller and no listing takes it for a model.
CONFIG_FILE = Path(".serving/models.config")


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One model of the configuration.

    Attributes:
        name: Model name that requests use.
        base_path: Folder that the server polls for versions.
        versions: Versions to serve, all others to unload; empty for the newest alone.
        labels: Version by label.
    """

    name: str
    base_path: Path
    versions: tuple[int, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        dangling = sorted(set(self.labels.values()) - set(self.versions)) if self.versions else []
        if dangling:
            raise ValueError(
                f"a label of {self.name!r} points at version {dangling[0]}, which is not among the "
                f"versions to serve: {', '.join(map(str, self.versions))}"
            )


def render_config(entries: Sequence[ModelEntry]) -> str:
    """`ModelServerConfig` in protobuf's text form, as `--model_config_file` takes it.

    Raises:
        ValueError: Two entries have the same name.
    """
    names = [entry.name for entry in entries]
    if len(set(names)) != len(names):
        raise ValueError(f"model names must differ, got {', '.join(names)}")
    config = ModelServerConfig()
    for entry in entries:
        model = config.model_config_list.config.add()
        model.name = entry.name
        # The server refuses relative base paths.
        model.base_path = str(entry.base_path.resolve())
        model.model_platform = "tensorflow"
        if entry.versions:
            model.model_version_policy.specific.versions.extend(entry.versions)
        for label, version in sorted(entry.labels.items()):
            model.version_labels[label] = version
    return text_format.MessageToString(config)


def write_config(path: Path, entries: Sequence[ModelEntry]) -> None:
    """Replaces a configuration file; a server that polls it sees the old or the new, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, render_config(entries))


def read_config(path: Path) -> ModelServerConfig:
    """The configuration in a file.

    Raises:
        RepositoryError: The file is missing or is no `ModelServerConfig`.
    """
    try:
        config: ModelServerConfig = text_format.Parse(
            path.read_text(encoding="utf-8"), ModelServerConfig()
        )
    except OSError as exc:
        raise RepositoryError(f"cannot read {path}: {exc.strerror}") from exc
    except (text_format.ParseError, UnicodeDecodeError) as exc:
        raise RepositoryError(f"{path} is no model server configuration: {exc}") from exc
    return config
