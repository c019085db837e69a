"""What the page talks to: servers by the clients, and the model repository on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from shortlist.clients import RetrievalClient, contract
from shortlist.clients.types import Metadata
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import CONFIG_FILE, entry_of, read_config
from shortlist.serving.rollout.config import ConfigFile, read_split
from shortlist.serving.rollout.fleet import Fleet, Observation, Server
from shortlist.serving.rollout.history import HISTORY_FILE, History, RecordedRollout
from shortlist.serving.rollout.shards import ConfigFiles, fleet_of, rollout_name
from shortlist.serving.rollout.versions import VersionRow, list_versions
from shortlist.serving.ui.catalogue import NOTHING, Catalogue, read_catalogue

__all__ = ["Abilities", "Choice", "Site", "Target"]

_CATALOGUES: Final = 4  # kept in memory; a million candidates take about 200 MB


@dataclass(frozen=True, kw_only=True)
class Target:
    """A model, and the version or label to ask; neither for the newest version.

    Its text is `model`, `model/3` or `model/stable`, as in `shortlist diff`.
    """

    model: str
    version: int | None = None
    label: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Return the target of a text."""
        model, _, which = text.partition("/")
        if not which:
            return cls(model=model)
        if which.isascii() and which.isdecimal() and len(which) < 20:
            return cls(model=model, version=int(which))
        return cls(model=model, label=which)

    def __str__(self) -> str:
        which = self.label if self.version is None else self.version
        return self.model if which is None else f"{self.model}/{which}"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One target of the form's list.

    Attributes:
        target: Text of the target.
        name: Text to show.
    """

    target: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """What a servable can do by its signatures; the form offers nothing else."""

    history: bool
    features: bool
    exclude: bool
    seen: bool
    filters: bool
    similar: bool

    @classmethod
    def of(cls, metadata: Metadata) -> "Abilities":
        """Return what the signatures allow."""
        signatures = metadata.signatures
        by_query = signatures.get(contract.RETRIEVE_BY_QUERY)
        queries = set(by_query.inputs) if by_query else set()
        usual = signatures.get(contract.RETRIEVE)
        inputs = queries | (set(usual.inputs) if usual else set())
        return cls(
            history=contract.HISTORY in queries,
            features=contract.FEATURES in queries,
            exclude=contract.EXCLUDE in inputs,
            seen=contract.EXCLUDE_SEEN in inputs,
            filters=contract.FILTER_ANY in inputs,
            similar=contract.SIMILAR in signatures,
        )


@dataclass(frozen=True, kw_only=True)
class Site:
    """Everything that the views read.

    Attributes:
        client: Client of the server that answers.
        servers: Its replicas, for states and labels.
        repository: The model repository, whose folder may be missing.
        names: Model names; empty for those in the repository.
        config: Configuration files of the servers; empty for that of the repository.
    """

    client: RetrievalClient
    servers: Sequence[Server]
    repository: ModelRepository
    names: Sequence[str] = ()
    config: Sequence[Path] = ()

    def __post_init__(self) -> None:
        read = lru_cache(maxsize=_CATALOGUES)(read_catalogue)
        object.__setattr__(self, "_read", read)

    @property
    def config_paths(self) -> list[Path]:
        """Configuration files, at least one; they may be missing."""
        return list(self.config) or [self.repository.root / CONFIG_FILE]

    def models(self) -> list[str]:
        """Return the names of the models.

        Raises:
            RepositoryError: There are none.
        """
        models = list(self.names) or self.repository.models()
        if not models:
            raise RepositoryError(
                f"no model in {self.repository.root}; start `shortlist ui` with --repository, or "
                "with --servable for the names of models that only a server has"
            )
        return models

    def choices(self) -> dict[str, list[Choice]]:
        """Return the targets to offer by model: the newest version, labels, versions."""
        path = self.config_paths[0]
        config = read_config(path) if path.exists() else None
        choices = {}
        for model in self.models():
            entry = entry_of(config, model) if config is not None else None
            versions = self.repository.versions(model)
            choices[model] = [
                Choice(target=model, name=f"{model}, newest"),
                *(
                    Choice(target=f"{model}/{label}", name=f"{model}, {label} ({at})")
                    for label, at in (entry.labels if entry else {}).items()
                ),
                *(
                    Choice(target=f"{model}/{version}", name=f"{model}, version {version}")
                    for version in reversed(versions)
                ),
            ]
        return choices

    def versions(self) -> tuple[list[VersionRow], dict[str, str]]:
        """Return the versions of all models, and why servers did not answer, by address.

        Raises:
            RepositoryError: The configuration file cannot be read.
        """
        return list_versions(
            self.repository, self.models(), config_path=self.config_paths[0], servers=self.servers
        )

    def rollouts(self) -> dict[str, Observation]:
        """Return the state by model; shards that roll out together are one model.

        Raises:
            RolloutError: The configuration file exists and cannot be read.
        """
        files = [ConfigFile(path) for path in self.config_paths]
        fleet = Fleet(
            repository=self.repository,
            servers=tuple(self.servers),
            config_file=files[0] if len(files) == 1 else ConfigFiles(files, self.repository),
        )
        published = self.repository.models()
        names = dict.fromkeys(rollout_name(published, model) for model in self.models())
        return {name: fleet_of(fleet, name, files).observe(name) for name in names}

    def shares(self) -> dict[str, dict[str, float]]:
        """Return the share by label by model, of canaries that were started.

        Raises:
            RolloutError: The file of shares cannot be read.
        """
        return read_split(self.config_paths[0])

    def log(self, last: int) -> list[RecordedRollout]:
        """Return the last rollouts, newest first."""
        return History(self.repository.root / HISTORY_FILE).rollouts()[-last:][::-1]

    def report(self, model: str, version: int) -> Path:
        """Return the report of a version.

        Raises:
            RepositoryError: There is none, or it is a link out of the version's folder.
        """
        folder = self.repository.version_path(model, version)
        report = folder / contract.REPORT_FILE
        if not report.is_file() or not report.resolve().is_relative_to(folder.resolve()):
            raise RepositoryError(
                f"version {version} of {model!r} has no report; versions of `shortlist export` have"
            )
        return report

    def metadata(self, target: Target) -> Metadata:
        """Return signatures and version of the servable that answers.

        Raises:
            ServingError: The server does not answer, or has no such servable.
        """
        return self.client.metadata(model=target.model, version=target.version, label=target.label)

    def catalogue(self, model: str, version: int | None) -> Catalogue:
        """Return candidates and users of a version; empty if the repository lacks it.

        Raises:
            RepositoryError: A file of the version cannot be read.
        """
        if version is None or version not in self.repository.versions(model):
            return NOTHING
        catalogue: Catalogue = self._read(self.repository.version_path(model, version))  # type: ignore[attr-defined]
        return catalogue
