"""The gates within a publication: between staging and the renames that make it visible."""

import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shortlist.export.gates.record import failed
from shortlist.export.gates.run import record_in_manifest, run_gates
from shortlist.export.gates.settings import GateSettings
from shortlist.export.gates.subject import Live, live_version, subject_of
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.local import ModelRepository, Publisher, parse_version
from shortlist.serving.repository.object_store import ObjectStore, is_url
from shortlist.serving.repository.version import (
    GateResult,
    Manifest,
    Verdict,
    checksums,
    read_manifest,
    write_manifest,
)

__all__ = ["Published", "pass_gates", "publish_saved_model", "summary", "verify_version"]

log = logging.getLogger(__name__)


def pass_gates(
    publisher: Publisher,
    names: Sequence[str],
    repository: ModelRepository,
    settings: GateSettings,
) -> dict[str, list[GateResult]]:
    """Puts everything that was staged before the gates and records the results in it.

    Args:
        publisher: The publication under way.
        names: The staged servables.
        repository: Where it is going to be published.
        settings: What is required.

    Raises:
        GateError: A gate failed that is not allowed to.
        RepositoryError: Something that was staged cannot be read.
    """
    subjects = [
        subject_of(
            name,
            publisher.version,
            publisher.staged(name),
            live=live_version(repository, name, before=publisher.version),
        )
        for name in names
    ]
    results = run_gates(subjects, settings)
    for subject in subjects:
        for result in results[subject.name]:
            log.info("%s: %s", subject.name, result)
        record_in_manifest(subject, results[subject.name])
    error = failed(results)
    if error is not None:
        raise error
    return results


@dataclass(frozen=True, kw_only=True)
class Published:
    """What was published.

    Attributes:
        version: Its number.
        path: Its folder or URL.
        results: Results of the gates by servable name.
    """

    version: int
    path: str
    results: Mapping[str, Sequence[GateResult]]


def verify_version(path: Path, settings: GateSettings) -> dict[str, list[GateResult]]:
    """Results of the gates for a version where it lies; changes nothing.

    Args:
        path: `<repository>/<model>/<version>`.
        settings: What is required.

    Raises:
        RepositoryError: The path is no version of a model repository.
    """
    path = path.resolve()
    version = parse_version(path.name)
    if version is None or not path.is_dir():
        raise RepositoryError(
            f"{path} is no version of a model repository; give <repository>/<model>/<version>, "
            "or publish a SavedModel from elsewhere with `shortlist publish`"
        )
    repository, name = ModelRepository(path.parent.parent), path.parent.name
    live = live_version(repository, name, before=version)
    return run_gates([subject_of(name, version, path, live=live)], settings)


def publish_saved_model(
    source: Path, name: str, repository: str, settings: GateSettings
) -> Published:
    """Publishes a copy of a SavedModel through the gates.

    Its own version number is kept where that is still free, since a servable of
    `shortlist export` answers with its number.

    Args:
        source: Folder with `saved_model.pb`.
        name: Model name.
        repository: Model repository: a folder, made if missing, or a URL that fsspec knows.
        settings: What is required.

    Raises:
        GateError: A gate failed; nothing was published.
        RepositoryError: The source is no SavedModel, or the repository cannot be written.
    """
    if not (source / "saved_model.pb").is_file():
        raise RepositoryError(f"{source} holds no saved_model.pb; give the folder of a SavedModel")
    wanted = max((read_manifest(source) or Manifest()).version or 1, 1)
    if is_url(repository):
        return _publish_to_store(ObjectStore(repository), source, name, wanted, settings)
    local = ModelRepository(Path(repository))
    with local.publisher([name], at_least=wanted) as publisher:
        staging = publisher.stage(name)
        _copy(source, staging, name, publisher.version)
        results = pass_gates(publisher, [name], local, settings)
        paths = publisher.publish()
    return Published(version=publisher.version, path=str(paths[name]), results=results)


def _publish_to_store(
    store: ObjectStore, source: Path, name: str, wanted: int, settings: GateSettings
) -> Published:
    """Puts a local copy before the gates, beside the store's newest version, and uploads it."""
    with tempfile.TemporaryDirectory(prefix="shortlist-publish-") as folder:
        newest = store.stable(name)
        live = None
        if newest is not None:
            live = Live(version=newest, path=Path(folder, "live"))
            store.download(name, newest, live.path)
        version = store.claim(name, at_least=wanted)
        copy = Path(folder, "copy")
        copy.mkdir()
        _copy(source, copy, name, version)
        subject = subject_of(name, version, copy, live=live)
        results = run_gates([subject], settings)
        record_in_manifest(subject, results[name])
        error = failed(results)
        if error is not None:
            raise error
        return Published(version=version, path=store.publish(name, version, copy), results=results)


def _copy(source: Path, target: Path, name: str, version: int) -> None:
    """Copies a SavedModel under a new number, which its manifest then says."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    manifest = read_manifest(target) or Manifest()
    if manifest.version is not None and manifest.version != version:
        log.warning(
            "version %d is taken: the answers of version %d will name %d as theirs",
            manifest.version,
            version,
            manifest.version,
        )
    files = checksums(target) if manifest.files is None else manifest.files
    write_manifest(target, replace(manifest, servable=name, version=version, files=files))


def summary(results: Mapping[str, Sequence[GateResult]]) -> str:
    """How many gates came out how, such as `21 passed, 3 skipped`."""
    verdicts = [result.verdict for found in results.values() for result in found]
    counts = [(verdict, verdicts.count(verdict)) for verdict in Verdict]
    return ", ".join(f"{count} {verdict}" for verdict, count in counts if count)
