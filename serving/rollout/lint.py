"""Find what a server would refuse, or accept and then break, in a configuration."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from shortlist.clients.wire.messages import ModelConfig, ModelServerConfig
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.names import parse_version

__all__ = ["LABELS_FLAG", "Finding", "Severity", "lint"]

LABELS_FLAG = "--allow_version_labels_for_unavailable_models"


class Severity(StrEnum):
    """Severity of a finding."""

    ERROR = "error"  # requests fail, or a server refuses the file or does not start with it
    WARNING = "warning"  # works until something else happens


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Problem of a configuration.

    Attributes:
        severity: Error or warning.
        model: Model name; `None` for the configuration as a whole.
        problem: The problem and its consequence.
        remedy: Next step.
    """

    severity: Severity
    model: str | None
    problem: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.model}: " if self.model is not None else ""
        return f"{self.severity}: {where}{self.problem}; {self.remedy}"


def lint(
    config: ModelServerConfig,
    *,
    current: ModelServerConfig | None = None,
    repository: ModelRepository | None = None,
    labels_flag: bool = True,
) -> list[Finding]:
    """Return the findings about a configuration, errors first.

    Args:
        config: Configuration to send or write.
        current: Configuration that the servers have; `None` if unknown.
        repository: The models' files on this machine, if the base paths are a container's.
        labels_flag: Whether servers start with `LABELS_FLAG`.
    """
    findings = list(_whole(config, current))
    for model in config.model_config_list.config:
        findings += _model(model, repository)
        if not labels_flag:
            findings += _start(model)
    return sorted(findings, key=lambda finding: finding.severity)


def _error(model: str | None, problem: str, remedy: str) -> Finding:
    return Finding(severity=Severity.ERROR, model=model, problem=problem, remedy=remedy)


def _warning(model: str | None, problem: str, remedy: str) -> Finding:
    return Finding(severity=Severity.WARNING, model=model, problem=problem, remedy=remedy)


def _whole(config: ModelServerConfig, current: ModelServerConfig | None) -> Iterator[Finding]:
    if config.WhichOneof("config") == "custom_model_config":
        yield _error(None, "a reload refuses custom_model_config", "use model_config_list")
        return
    names = Counter(model.name for model in config.model_config_list.config)
    for name, count in names.items():
        if count > 1:
            yield _error(name, f"listed {count} times; servers refuse that", "keep one")
    if not names:
        yield _error(
            None, "no model is listed; a reload would unload all models", "list the models"
        )
    for model in current.model_config_list.config if current is not None else ():
        if model.name not in names:
            yield _warning(
                model.name,
                "served now but not listed; a reload would unload it",
                "list it, unless that is intended",
            )


def _model(model: ModelConfig, repository: ModelRepository | None) -> Iterator[Finding]:
    name = model.name
    if not name:
        yield _error(name, "a model has no name", "give it one")
    if not model.model_platform and not model.model_type:
        yield _error(
            name, "model_platform is missing; servers refuse that", 'set it to "tensorflow"'
        )
    specific = None
    if model.model_version_policy.WhichOneof("policy_choice") == "specific":
        specific = sorted(model.model_version_policy.specific.versions)
        if not specific:
            yield _error(name, "the policy names no version; a reload would unload all", "name one")
    yield from _labels(model, specific)
    if "://" in model.base_path:
        return  # another file system, whose files are not visible here
    base_path = Path(model.base_path)
    if not base_path.is_absolute():
        yield _error(
            name,
            f"the base path {model.base_path!r} is relative; servers refuse that",
            "make it absolute",
        )
        return
    if repository is not None and base_path.name == name and name in repository.models():
        base_path = repository.base_path(name)
    yield from _files(name, base_path, specific)


def _labels(model: ModelConfig, specific: list[int] | None) -> Iterator[Finding]:
    policy = model.model_version_policy.WhichOneof("policy_choice")
    for label, version in sorted(model.version_labels.items()):
        if specific is not None and version not in specific:
            yield _error(
                model.name,
                f"label {label!r} points at version {version}, which is not served: a server "
                "accepts that, but every request for the label fails",
                "serve the version or move the label",
            )
        elif specific is None and policy != "all":
            yield _warning(
                model.name,
                f"label {label!r} points at version {version} while the newest version is "
                "served: the next publication unloads the label's version",
                "name the versions to serve",
            )


def _start(model: ModelConfig) -> Iterator[Finding]:
    # A starting server checks labels before it loads any version (serving#1608).
    if model.version_labels:
        version = min(model.version_labels.values())  # one of them; the server's order is open
        yield _error(
            model.name,
            f'a server that starts with these labels ends at once: "Request to assign label to '
            f"version {version} of model {model.name}, which is not currently available for "
            f'inference"',
            f"start servers with {LABELS_FLAG}=true, as `shortlist serve` does; if they have that "
            f"flag, pass it to `shortlist rollout lint` too",
        )


def _files(name: str, base_path: Path, specific: list[int] | None) -> Iterator[Finding]:
    folders: dict[int, list[Path]] = {}
    if base_path.is_dir():
        for entry in sorted(base_path.iterdir()):
            version = parse_version(entry.name)
            if version is not None and entry.is_dir():
                folders.setdefault(version, []).append(entry)
    if not folders:
        yield _error(
            name,
            f"no version in {base_path}: a server waits indefinitely at startup, its ports "
            "closed, and a reload blocks until its deadline",
            "publish one, or remove the model from the list",
        )
        return
    for version in specific if specific is not None else [max(folders)]:
        if version not in folders:
            yield _error(
                name,
                f"version {version} is not in {base_path}: it would never be AVAILABLE",
                f"available: {', '.join(map(str, sorted(folders)))}",
            )
            continue
        if len(folders[version]) > 1:
            paths = " and ".join(path.name for path in folders[version])
            yield _error(name, f"{paths} are both version {version}", "remove one")
        yield from _one_version(name, folders[version][0])


def _one_version(name: str, folder: Path) -> Iterator[Finding]:
    if not (folder / "saved_model.pb").is_file():
        yield _error(
            name,
            f"{folder} has no saved_model.pb: it does not load, and as the newest version "
            "it prevents a server from starting",
            "publish the model again under a new number",
        )
    elif not (folder / "variables" / "variables.index").is_file() and _has_variables(folder):
        yield _error(
            name,
            f"{folder} has lost its variables: it loads, but every request fails",
            "publish the model again under a new number",
        )


def _has_variables(folder: Path) -> bool:
    """Return whether the graph creates variables; it names each op in plain bytes."""
    return b"VarHandleOp" in (folder / "saved_model.pb").read_bytes()
