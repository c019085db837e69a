"""Gates as part of a publication: after staging, before the renames that make it visible."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shortlist.export.gates.foreign import Choices, describe
from shortlist.export.gates.record import require_passed
from shortlist.export.gates.run import run_gates
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.source import check_saved_model
from shortlist.export.gates.subject import Live, Subject, live_version, read_subject
from shortlist.serving.repository.files import temporary_folder
from shortlist.serving.repository.local import ModelRepository, Publisher
from shortlist.serving.repository.names import check_model_name
from shortlist.serving.repository.object_store import ObjectStore, is_url
from shortlist.serving.repository.reference import find_version
from shortlist.serving.repository.version import (
    GateResult,
    Manifest,
    checksums,
    read_manifest,
    write_manifest,
)
from shortlist.serving.request_log.selection import SelectedLog, Selection, is_request_log
from shortlist.serving.request_log.warmup import as_golden, varied_requests

__all__ = ["Published", "pass_gates", "publish_saved_model", "verify_version"]

log = logging.getLogger(__name__)

_RECORDED = 200  # requests of a log


def pass_gates(
    publisher: Publisher,
    names: Sequence[str],
    repository: ModelRepository,
    settings: GateSettings,
) -> dict[str, list[GateResult]]:
    """Run the gates on all staged servables and record the results in their manifests.

    Args:
        publisher: The current publication.
        names: Names of the staged servables.
        repository: Repository to publish into.
        settings: Limits of the gates.

    Raises:
        GateError: A gate failed without being allowed to.
        RepositoryError: A staged file cannot be read.
    """
    subjects = [
        read_subject(
            name,
            publisher.version,
            publisher.staged(name),
            live=live_version(repository, name, before=publisher.version),
        )
        for name in names
    ]
    return _pass_gates(subjects, settings)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published version.

    Attributes:
        version: Version number.
        path: Folder or URL of the version.
        results: Gate results by servable name.
    """

    version: int
    path: str
    results: Mapping[str, Sequence[GateResult]]


def verify_version(
    path: Path,
    settings: GateSettings,
    *,
    repository: Path | None = None,
    queries: Path | None = None,
) -> dict[str, list[GateResult]]:
    """Run the gates on a version in its repository, without changing anything.

    Args:
        path: Folder `<repository>/<model>/<version>`, or a label instead of the version.
        settings: Limits of the gates.
        repository: Model repository in which `path` may also be `<model>/<version>`.
        queries: Request log with requests that the version must answer.

    Raises:
        RepositoryError: The path is not a version of a model repository.
        LogFileError: The log cannot be read, or holds no requests.
    """
    found = find_version(str(path), root=repository)
    live = live_version(found.repository, found.name, before=found.version)
    subject = read_subject(found.name, found.version, found.path, live=live)
    return run_gates([_with_recorded(subject, queries)], settings)


def _with_recorded(subject: Subject, queries: Path | None) -> Subject:
    """Return a version with a sample of the requests to its model, or else of all in a log."""
    if queries is None:
        return subject
    own = SelectedLog(queries, Selection(model=subject.name))
    other = not any(True for _ in own) and bool(own.models)  # such as another index of the model
    log = SelectedLog(queries, None if other else Selection(model=subject.name))
    requests = varied_requests(log, _RECORDED)
    return replace(subject, recorded=tuple(as_golden(requests)))


def publish_saved_model(
    source: Path,
    name: str,
    repository: str,
    settings: GateSettings,
    *,
    choices: Choices | None = None,
) -> Published:
    """Publish a copy of a SavedModel that passes the gates.

    Servables of `shortlist export` answer with their version number, so the copy keeps it if
    it is still free.

    Args:
        source: Folder with `saved_model.pb`.
        name: Model name.
        repository: Model repository: a folder, created if missing, or a URL for fsspec.
        settings: Limits of the gates.
        choices: What its publisher says about a SavedModel that Shortlist did not export; None
            to find everything.

    Raises:
        GateError: A gate failed; nothing was published.
        NoInterfaceError: A chosen tensor does not exist.
        RepositoryError: The source is not a SavedModel, the file of queries cannot be read, or
            the repository is not writable.
    """
    check_model_name(name)
    check_saved_model(source)
    choices = choices or Choices()
    at_least = max((read_manifest(source) or Manifest()).version or 1, 1)
    if is_url(repository):
        return _publish_to_store(ObjectStore(repository), source, name, at_least, settings, choices)
    local = ModelRepository(Path(repository))
    with local.publisher([name], at_least=at_least) as publisher:
        staging = publisher.stage(name)
        live = live_version(local, name, before=publisher.version)
        subject = _copy(source, staging, name, publisher.version, choices, live, settings)
        results = _pass_gates([subject], settings)
        paths = publisher.publish()
    return Published(version=publisher.version, path=str(paths[name]), results=results)


def _publish_to_store(
    store: ObjectStore,
    source: Path,
    name: str,
    at_least: int,
    settings: GateSettings,
    choices: Choices,
) -> Published:
    """Run the gates on a local copy, compared with the store's live version, and upload it."""
    with temporary_folder("publish") as folder:
        newest = store.stable(name)
        live = None
        if newest is not None:
            live = Live(version=newest, path=folder / "live")
            store.download(name, newest, live.path)
        version = store.claim(name, at_least=at_least)
        copy = folder / "copy"
        copy.mkdir()
        subject = _copy(source, copy, name, version, choices, live, settings)
        results = _pass_gates([subject], settings)
        return Published(version=version, path=store.publish(name, version, copy), results=results)


def _pass_gates(subjects: Sequence[Subject], settings: GateSettings) -> dict[str, list[GateResult]]:
    results = run_gates(subjects, settings)
    for subject in subjects:
        for result in results[subject.name]:
            log.info("%s: %s", subject.name, result)
        gates = tuple(results[subject.name])
        write_manifest(subject.path, replace(subject.manifest, gates=gates))
    require_passed(results)
    return results


def _copy(
    source: Path,
    target: Path,
    name: str,
    version: int,
    choices: Choices,
    live: Live | None,
    settings: GateSettings,
) -> Subject:
    """Copy a SavedModel, set name and version in its manifest, and describe a foreign one."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    manifest = read_manifest(target) or Manifest()
    if manifest.exported and manifest.version is not None and manifest.version != version:
        log.warning(
            "version %d is already published: answers of version %d will name version %d",
            manifest.version,
            version,
            manifest.version,
        )
    recorded = None
    if manifest.exported and choices.queries is not None and is_request_log(choices.queries):
        recorded, choices = choices.queries, replace(choices, queries=None)
    described = describe(
        target, name, version, manifest, choices, allow_file_ops=settings.allow_file_ops
    )
    manifest = described.manifest
    files = checksums(target) if manifest.files is None else manifest.files
    write_manifest(target, replace(manifest, servable=name, version=version, files=files))
    subject = read_subject(name, version, target, live=live)
    return _with_recorded(replace(subject, note=described.note), recorded)
