"""Metrics of the server, under TensorFlow Serving's names."""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shortlist.serving.embedded.api.errors import Code, StatusError

__all__ = ["CONTENT_TYPE", "DEFAULT_PATH", "Metrics"]

DEFAULT_PATH: Final = "/monitoring/prometheus/metrics"
CONTENT_TYPE: Final = "text/plain"


def _exponential(scale: float, growth: float, count: int) -> list[float]:
    """Return the upper bounds of `monitoring::Buckets::Exponential`; the last bucket is open."""
    return [scale * growth**power for power in range(count)]


_MAX_UNANSWERED: Final = 500  # names that only clients know
_MAX_NAME: Final = 256
_OTHERS: Final = "(others)"
_LATENCY_BUCKETS: Final = _exponential(10, 1.8, 33)
# What became of the records of a request log.
_LOG_STATUS: Final = {
    "written": Code.OK,
    "dropped": Code.RESOURCE_EXHAUSTED,
    "lost": Code.DATA_LOSS,
}


class _Family:
    """One metric: TensorFlow's name and the collector of its values."""

    def __init__(
        self,
        registry: CollectorRegistry,
        kind: type[Counter | Gauge | Histogram],
        name: str,
        labels: Sequence[str] = (),
        buckets: Sequence[float] = (),
    ) -> None:
        self.tensorflow_name = name
        self.exposed_name = re.sub(r"[^a-zA-Z0-9_]", ":", name)
        self.kind = kind.__name__.lower()
        # prometheus_client adds a suffix to the names of counters, so its name is not shown.
        inner = re.sub(r"[^a-zA-Z0-9_]", "_", name).strip("_")
        self.collector: Counter | Gauge | Histogram
        if issubclass(kind, Histogram):
            self.collector = kind(inner, name, labels, registry=registry, buckets=buckets)
        else:
            self.collector = kind(inner, name, labels, registry=registry)
        self._children: dict[tuple[str, ...], Any] = {}

    def at(self, *labels: str) -> Any:
        """Return the counter or histogram with these label values."""
        child = self._children.get(labels)
        if child is None:
            # Bytes that are not UTF-8 are surrogates here, which the page could not encode.
            shown = [label.encode("utf-8", "replace").decode() for label in labels]
            child = self.collector.labels(*shown) if shown else self.collector
            self._children[labels] = child
        return child

    def lines(self) -> Iterable[str]:
        yield f"# TYPE {self.exposed_name} {self.kind}"
        for metric in self.collector.collect():
            for sample in metric.samples:
                suffix = sample.name[len(metric.name) :]
                if suffix == "_created":
                    continue
                if self.kind == "counter":
                    suffix = ""
                labels = ",".join(
                    f'{key}="{_escape(_bound(value) if key == "le" else value)}"'
                    for key, value in sample.labels.items()
                )
                yield f"{self.exposed_name}{suffix}{{{labels}}} {_number(sample.value)}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _bound(value: str) -> str:
    return value if value == "+Inf" else f"{float(value):g}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


class _Answering:
    """Context of one request; a generator would take twice as long."""

    __slots__ = ("_clock", "_labels", "_metrics", "_started")

    def __init__(
        self, metrics: "Metrics", clock: Callable[[], float], labels: tuple[str, str, str]
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._labels = labels

    def __enter__(self) -> None:
        self._started = self._clock()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: object
    ) -> None:
        if exc is None:
            self._metrics.answered(*self._labels, self._clock() - self._started)
        else:
            code = exc.code if isinstance(exc, StatusError) else Code.INTERNAL
            self._metrics.request(self._labels[0], code)


class Metrics:
    """Counters and histograms of one server.

    Args:
        clock: Source of time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._registry = CollectorRegistry()
        self._families: list[_Family] = []
        self._models: set[str] = set()
        self._unanswered: set[str] = set()
        add = self._add
        serving = "/tensorflow/serving/"
        self._load_attempts = add(
            Counter, "/tensorflow/cc/saved_model/load_attempt_count", ("model_path", "status")
        )
        self._load_latency = add(
            Counter, "/tensorflow/cc/saved_model/load_latency", ("model_path",)
        )
        self._queuing = add(
            Histogram,
            serving + "batching_session/queuing_latency",
            ("thread_pool_name",),
            _exponential(100, 1.2, 52),
        )
        self._wrapped_runs = add(Counter, serving + "batching_session/wrapped_run_count")
        add(Gauge, serving + "mlmd_map", ("model_name", "version"))
        self._warmup_latency = add(
            Histogram, serving + "model_warmup_latency", ("model_path", "status"), _LATENCY_BUCKETS
        )
        self._warmup_records = add(
            Counter, serving + "model_warmup_records_read", ("model_path", "status")
        )
        self._requests = add(Counter, serving + "request_count", ("model_name", "status"))
        self._examples = add(Counter, serving + "request_example_count_total", ("model",))
        self._example_counts = add(
            Histogram, serving + "request_example_counts", ("model",), _exponential(1, 2, 15)
        )
        self._latency = add(
            Histogram,
            serving + "request_latency",
            ("model_name", "API", "entrypoint"),
            _LATENCY_BUCKETS,
        )
        self._log_records = add(Counter, serving + "request_log_count", ("model_name", "status"))
        self._log_bytes = add(Counter, "/shortlist/serving/request_log_bytes", ("model_name",))
        self._cancelled = add(Counter, "/shortlist/serving/cancelled_call_count", ("reason",))
        self._runtime = add(
            Histogram,
            serving + "runtime_latency",
            ("model_name", "API", "runtime"),
            _LATENCY_BUCKETS,
        )

    def _add(
        self,
        kind: type[Counter | Gauge | Histogram],
        name: str,
        labels: Sequence[str] = (),
        buckets: Sequence[float] = (),
    ) -> _Family:
        family = _Family(self._registry, kind, name, labels, buckets)
        self._families.append(family)
        return family

    def answering(self, model: str, api: str, entrypoint: str) -> AbstractContextManager[None]:
        """Count the request that is answered in this context, and measure it if it succeeds.

        Args:
            model: Model name.
            api: Name of the call, as the real server writes it for this transport.
            entrypoint: `REST` or `GRPC`.
        """
        return _Answering(self, self._clock, (model, api, entrypoint))

    def answered(self, model: str, api: str, entrypoint: str, seconds: float) -> None:
        """Measure and count a request that succeeded."""
        self._latency.at(model, api, entrypoint).observe(seconds * 1e6)
        self.request(model, Code.OK)

    def request(self, model: str, code: Code) -> None:
        """Count an answered request.

        Clients send model names, existing or not, without limit: names that have never been
        answered are counted together after the first few hundred.
        """
        if model not in self._models:
            if code is Code.OK:
                self._models.add(model)
                self._unanswered.discard(model)
            elif len(model) > _MAX_NAME or len(self._unanswered) >= _MAX_UNANSWERED:
                model = model if model in self._unanswered else _OTHERS
            else:
                self._unanswered.add(model)
        self._requests.at(model, code.name).inc()

    def runtime_latency(self, model: str, api: str, seconds: float) -> None:
        """Measure the runtime's part of a request."""
        self._runtime.at(model, api, "TF1").observe(seconds * 1e6)

    def examples(self, model: str, count: int) -> None:
        """Count the examples of one request."""
        self._examples.at(model).inc(count)
        self._example_counts.at(model).observe(count)

    def cancelled_call(self, reason: str) -> None:
        """Count a gRPC call that was cancelled because its client did not go on."""
        self._cancelled.at(reason).inc()

    def request_log(self, model: str, name: str, number: int) -> None:
        """Count records of a model's log, or their bytes; see `LogCounts`."""
        if name == "bytes":
            self._log_bytes.at(model).inc(number)
        else:
            self._log_records.at(model, _LOG_STATUS[name].name).inc(number)

    def load(self, path: str, seconds: float, *, ok: bool) -> None:
        """Count an attempt to load a version."""
        status = "success" if ok else "fail"
        self._load_attempts.at(path, status).inc()
        if ok:
            self._load_latency.at(path).inc(seconds * 1e6)

    def warmup(self, path: str, records: int, seconds: float, status: str) -> None:
        """Measure the warm-up of a version; `status` is that of its last record."""
        self._warmup_records.at(path, status).inc(records)
        self._warmup_latency.at(path, status).observe(seconds * 1e6)

    def batch(self, thread_pool: str, queued_seconds: Iterable[float]) -> None:
        """Count one merged run, and how long each of its requests had waited."""
        self._wrapped_runs.at().inc()
        for seconds in queued_seconds:
            self._queuing.at(thread_pool).observe(seconds * 1e6)

    def value(self, name: str) -> int:
        """Return the first value of the metric with this TensorFlow name, 0 if there is none."""
        for family in self._families:
            if family.tensorflow_name == name:
                for metric in family.collector.collect():
                    for sample in metric.samples:
                        if not sample.name.endswith("_created"):
                            return int(sample.value)
        return 0

    def page(self) -> bytes:
        """Return the page for Prometheus."""
        lines = [line for family in self._families for line in family.lines()]
        return ("\n".join(lines) + "\n").encode()
