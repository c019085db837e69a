"""MLflow as a tracker: a run for each publication, registered models with aliases."""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from shortlist.clients import contract
from shortlist.export.progress import VALIDATION_METRIC
from shortlist.export.tracking.tracker import Published, TrackingError

# MLflow reads these when it is imported. It asks a server that is away for four minutes, and
# reports its use to its makers, unless it is told otherwise.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

import mlflow
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

__all__ = ["MlflowTracker"]

_EXPERIMENT = "shortlist"  # unless the caller or MLFLOW_EXPERIMENT_NAME names one
_FINGERPRINT = "shortlist.fingerprint"
_LONGEST_PARAM = 6000  # characters
_BATCH = 100  # parameters in one call; MLflow takes as many, and 1000 metrics


class MlflowTracker:
    """Records publications where `MLFLOW_TRACKING_URI` says, or in `mlflow.db`."""

    def __init__(self, experiment: str | None = None) -> None:
        """Connect to MLflow.

        Args:
            experiment: Experiment of the runs, created if missing; `None` for that of
                `MLFLOW_EXPERIMENT_NAME`, or `shortlist`.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        self._experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or _EXPERIMENT
        with self._errors():
            self._client = mlflow.MlflowClient()

    @property
    def address(self) -> str:
        """The tracking URI, without a password."""
        return _public(mlflow.get_tracking_uri())

    def known(self, name: str) -> Collection[str]:
        """Return the fingerprints of the registered versions; see `Tracker`."""
        return self._numbers(name)

    def log(self, servables: Sequence[Published]) -> None:
        """Write a run with settings, metrics, curves and report, and register; see `Tracker`."""
        first = servables[0]
        model = first.manifest.model or first.name
        with self._errors():
            run = self._client.create_run(
                self._experiment_id(),
                run_name=f"{model} {first.version}",
                start_time=_created(first),
                tags={"shortlist.model": model, "shortlist.version": str(first.version)},
            )
            run_id = run.info.run_id
            params = [Param(key, value) for key, value in _params(first).items()]
            for start in range(0, len(params), _BATCH):
                self._client.log_batch(run_id, params=params[start : start + _BATCH])
            metrics = list(_metrics(servables))
            for start in range(0, len(metrics), _BATCH):
                self._client.log_batch(run_id, metrics=metrics[start : start + _BATCH])
            if first.report is not None:
                self._client.log_artifact(run_id, str(first.report))
            for servable in servables:
                file = servable.path / contract.MANIFEST_FILE
                self._client.log_artifact(run_id, str(file), artifact_path=servable.name)
            self._client.set_terminated(run_id)
            for servable in servables:
                self._register(servable, run.info)

    def label(self, name: str, labels: Mapping[str, str | None]) -> Mapping[str, str]:
        """Set and delete aliases; see `Tracker`."""
        changes: dict[str, str] = {}
        numbers = self._numbers(name)
        with self._errors():
            aliases = self._client.get_registered_model(name).aliases
            for label, fingerprint in labels.items():
                number = numbers.get(fingerprint or "")
                before = aliases.get(label)
                if number is not None and str(before) != number:
                    self._client.set_registered_model_alias(name, label, number)
                    changes[label] = f"alias of MLflow's version {number}"
                elif fingerprint is None and before is not None:
                    self._client.delete_registered_model_alias(name, label)
                    changes[label] = "alias deleted"
        return changes

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            return str(self._client.create_experiment(self._experiment))
        return str(found.experiment_id)

    def _register(self, servable: Published, run: Any) -> None:
        if not self._client.search_registered_models(f"name = '{servable.name}'"):
            self._client.create_registered_model(servable.name)
        self._client.create_model_version(
            servable.name,
            # A server refuses folders of another machine, so the path is a tag.
            source=f"{run.artifact_uri}/{servable.name}",
            run_id=run.run_id,
            tags={
                "shortlist.version": str(servable.version),
                "shortlist.path": str(servable.path),
                _FINGERPRINT: servable.fingerprint,
            },
        )

    def _numbers(self, name: str) -> dict[str, str]:
        """Return MLflow's number of each version of a servable, by fingerprint."""
        numbers, token = {}, None
        with self._errors():
            while True:
                page = self._client.search_model_versions(f"name = '{name}'", page_token=token)
                for version in page:
                    if fingerprint := version.tags.get(_FINGERPRINT):
                        numbers[fingerprint] = str(version.version)
                token = page.token
                if not token:
                    return numbers

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (MlflowException, OSError) as exc:
            reason = " ".join(_public(str(exc)).split())
            raise TrackingError(
                f"MLflow at {self.address} failed: {reason}; check MLFLOW_TRACKING_URI"
            ) from exc


def _public(text: str) -> str:
    """Return a text without the users and passwords of addresses."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", text)


def _created(servable: Published) -> int | None:
    """Return the time of the export, in milliseconds since 1970."""
    created = servable.manifest.created
    return None if created is None else int(datetime.fromisoformat(created).timestamp() * 1000)


def _params(servable: Published) -> dict[str, str]:
    manifest = servable.manifest
    values = dict(_leaves(manifest.config))
    values |= dict(_leaves(manifest.settings, "query."))
    values |= dict(_leaves(manifest.packages, "packages."))
    if manifest.dataset is not None:
        facts = {name: value for name, value in vars(manifest.dataset).items() if name != "source"}
        values |= dict(_leaves(facts, "data."))
    return {
        key: str(value)[:_LONGEST_PARAM] for key, value in values.items() if value not in (None, "")
    }


def _metrics(servables: Sequence[Published]) -> Iterator[Metric]:
    first = servables[0]
    now = _created(first) or 0
    for key, value in _leaves(first.manifest.metrics):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield Metric(key, float(value), now, 0)
    for servable in servables:
        recall = servable.manifest.index.get("recall", {}).get("chosen", {}).get("recall")
        if recall is not None:
            yield Metric(f"recall.{servable.name}", float(recall), now, 0)
    for record in first.manifest.epochs:
        for key, name in (("loss", "loss"), ("validation", f"validation.{VALIDATION_METRIC}")):
            if (value := record.get(key)) is not None:
                yield Metric(_name(name), float(value), now, int(record["epoch"] or 0))


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by dotted keys that MLflow takes."""
    for key, value in values.items():
        name = f"{prefix}{_name(str(key))}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _name(text: str) -> str:
    """Return a name of MLflow, which takes no @: `hit_rate@10` is `hit_rate_at_10`."""
    return re.sub(r"[^\w\-. /]", "_", text.replace("@", "_at_"), flags=re.ASCII)
