"""Request logs of the models: what `logging_config` asks for, and the records.

TensorFlow Serving has the configuration, the messages and the calls, but no collector. Ours writes
files in the background (`shortlist.clients.request_log`); a request pays for a queue only.
"""

import errno
import logging
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Final

from shortlist.clients.errors import ShortlistError
from shortlist.clients.request_log.files import GIB, MIB, LogFile
from shortlist.clients.request_log.framing import checksum
from shortlist.clients.request_log.records import SERVER, encode
from shortlist.clients.request_log.user_ids import UserIds
from shortlist.clients.request_log.writer import LogWriter, QueueRoom, close_writers
from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.errors import Code, StatusError, invalid
from shortlist.serving.embedded.api.interfaces import Servable
from shortlist.serving.embedded.api.metrics import Metrics

__all__ = ["Logged", "RequestLogOptions", "RequestLogs", "log_settings"]

log = logging.getLogger(__name__)

_TYPES: Final = ("", "tfrecord")
_ROOT: Final = Path("/")


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """Log of one model.

    Attributes:
        prefix: Folder and first part of the names of its files.
        rate: Share of the requests to log, above 0.
    """

    prefix: Path
    rate: float


@dataclass(frozen=True, kw_only=True)
class RequestLogOptions:
    """Flags for all logs.

    Attributes:
        user_ids: What to keep of user ids.
        queue_bytes: Most bytes of all models that wait to be written.
        max_file_bytes: Compressed size of a file.
        max_file_age: Seconds until a file is finished.
        max_bytes: Most bytes of the files of all models; `None` for no limit.
    """

    user_ids: UserIds = field(default_factory=UserIds)
    queue_bytes: int = 64 * MIB
    max_file_bytes: int = 64 * MIB
    max_file_age: float = 3600.0
    max_bytes: int | None = 10 * GIB


def log_settings(config: messages.ModelServerConfig) -> dict[str, LogSettings]:
    """Return the log of each model that is to be logged.

    Raises:
        StatusError: A `logging_config` cannot be followed.
    """
    settings = {}
    for model in config.model_config_list.config:
        if model.HasField("logging_config"):
            chosen = _settings(model.name, model.logging_config)
            if chosen.rate > 0:
                settings[model.name] = chosen
    if settings:
        try:
            checksum()
        except ShortlistError as exc:
            raise StatusError(Code.FAILED_PRECONDITION, str(exc)) from exc
    return settings


def _settings(name: str, config: messages.LoggingConfig) -> LogSettings:
    collector, rate = config.log_collector_config, config.sampling_config.sampling_rate
    if collector.type not in _TYPES:
        # The real server's words for a type without a factory.
        raise StatusError(
            Code.NOT_FOUND,
            f"Cannot find LogCollector::Factory for type: {collector.type} (model {name}; the "
            'embedded server has the type "tfrecord")',
        )
    if not 0 <= rate <= 1:
        raise invalid(f"sampling_rate of model {name} must be between 0 and 1, got {rate:g}")
    prefix = collector.filename_prefix
    if not prefix.startswith("/"):
        raise invalid(
            f"logging_config of model {name} needs an absolute path as filename_prefix, such as "
            f'"/var/log/shortlist/{name}"; got filename_prefix={prefix}'
        )
    if not prefix.isprintable():
        raise invalid(
            f"filename_prefix of model {name} must not contain control characters, got {prefix!r}"
        )
    prefix = os.path.normpath(prefix + name if prefix.endswith("/") else prefix)
    return LogSettings(prefix=Path(prefix), rate=rate)


@dataclass(frozen=True, kw_only=True)
class _ModelLog:
    settings: LogSettings
    writer: LogWriter
    user_ids: UserIds
    common: bytes  # of the metadata of every record

    def offer(self, data: bytes) -> None:
        kept = self.user_ids.ids == "keep"
        self.writer.offer(data if kept else partial(self.user_ids.applied, data), len(data))


class RequestLogs:
    """The logs of all models.

    Args:
        metrics: Where records are counted.
        options: Flags for all logs.
    """

    def __init__(
        self, metrics: Metrics | None = None, options: RequestLogOptions | None = None
    ) -> None:
        self._metrics = metrics or Metrics()
        self._options = options or RequestLogOptions()
        self._room = QueueRoom(self._options.queue_bytes)
        self._logs: Mapping[str, _ModelLog] = {}  # replaced as a whole
        self._folders: set[Path] = set()  # of the configurations so far
        self._prefixes: list[Path] = []  # so far, whose files the limit is for

    def check_folders(self, config: messages.ModelServerConfig) -> None:
        """Refuse logs outside the folders of earlier configurations.

        Whoever reaches the gRPC port may send a configuration, but not choose where files are
        written: that takes the configuration file.

        Raises:
            StatusError: PERMISSION_DENIED, or a `logging_config` cannot be followed.
        """
        for name, settings in log_settings(config).items():
            folder = settings.prefix.parent
            # A prefix such as /logs names the root folder, which is above all others.
            above = {path for path in folder.parents if path != _ROOT}
            if self._folders.isdisjoint({folder, *above}):
                raise StatusError(
                    Code.PERMISSION_DENIED,
                    f"logging_config of model {name} names the folder {folder}, "
                    "which no configuration file of this server has named: put it into "
                    "--model_config_file, and restart the server or let it poll the file",
                )

    def update(self, config: messages.ModelServerConfig) -> None:
        """Follow a configuration: open, move and close logs, or change their rates.

        Raises:
            StatusError: A `logging_config` cannot be followed; nothing has changed.
        """
        before, after = self._logs, {}
        for name, settings in log_settings(config).items():
            current = before.get(name)
            if current is None or current.settings != settings:
                log.info(
                    "requests to %s are logged in %s-*, sampling rate %g",
                    *(name, settings.prefix, settings.rate),
                )
            moved = current is None or current.settings.prefix != settings.prefix
            after[name] = _ModelLog(
                settings=settings,
                writer=self._writer(name, settings) if moved or not current else current.writer,
                user_ids=self._options.user_ids,
                common=messages.LogMetadata(
                    sampling_config=messages.SamplingConfig(sampling_rate=settings.rate),
                    request_origin=SERVER,
                ).SerializeToString(),
            )
        self._logs = after
        self._folders |= {model_log.settings.prefix.parent for model_log in after.values()}
        closed = [
            old
            for name, old in before.items()
            if name not in after or after[name].writer is not old.writer
        ]
        close_writers(old.writer for old in closed)
        for old in closed:
            log.info("the request log %s-* is closed", old.settings.prefix)

    def _writer(self, name: str, settings: LogSettings) -> LogWriter:
        options = self._options
        folder = settings.prefix.parent
        if settings.prefix not in self._prefixes:
            self._prefixes.append(settings.prefix)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            problem = "" if os.access(folder, os.W_OK) else os.strerror(errno.EACCES)
        except OSError as exc:
            problem = exc.strerror or str(exc)
        if problem:  # a server that answers matters more than its log
            log.error("%s cannot be written (%s): requests to %s go on", folder, problem, name)
        file = LogFile(
            settings.prefix,
            max_file_bytes=options.max_file_bytes,
            max_file_age=options.max_file_age,
            max_bytes=options.max_bytes,
            together=self._prefixes,
        )
        return LogWriter(file, room=self._room, report=partial(self._metrics.request_log, name))

    def begin(self, model: str) -> "Logged | None":
        """Return an entry if this request to a model is to be logged."""
        model_log = self._logs.get(model)
        if model_log is None or random.random() >= model_log.settings.rate:
            return None
        return Logged(model_log)

    def close(self) -> None:
        """Write what is queued, and finish all files."""
        logs, self._logs = self._logs, {}
        close_writers(model_log.writer for model_log in logs.values())


class Logged:
    """A request that is to be logged once it has been answered."""

    __slots__ = ("_clock", "_log", "_time")

    def __init__(self, model_log: _ModelLog) -> None:
        self._log = model_log
        self._time = time.time()
        self._clock = time.perf_counter()

    def has_room(self) -> bool:
        """Return whether the record is worth building; if not, it counts as dropped."""
        return self._log.writer.has_room()

    def answered(
        self,
        kind: str,
        transport: str,
        servable: Servable,
        asked: tuple[str, str],
        exchange: tuple[bytes, bytes],
    ) -> None:
        """Queue the record.

        It is assembled here: objects that wait to be encoded would cost more time, in Python's
        garbage collection, than encoding does.

        Args:
            kind: Kind of call, see `records.encode`.
            transport: `REST` or `GRPC`.
            servable: Servable that answered.
            asked: Names of the signature and of the version label; empty without a label.
            exchange: Serialised request and response.
        """
        times = messages.LogMetadata(
            timestamp_secs=int(self._time),
            time_us=int(self._time * 1e6),
            latency_us=max(int((time.perf_counter() - self._clock) * 1e6), 1),
        )
        facts = _facts(servable.name, servable.version, *asked, transport)
        metadata = self._log.common + facts + times.SerializeToString()
        self._log.offer(encode(metadata, *exchange, kind=kind))


@lru_cache(1024)
def _facts(model: str, version: int, signature: str, label: str, transport: str) -> bytes:
    """Return the part of the metadata that many requests share."""
    spec = messages.ModelSpec(name=model, signature_name=signature)
    spec.version.value = version
    metadata = messages.LogMetadata(model_spec=spec, version_label=label, transport=transport)
    return metadata.SerializeToString()
