"""The runtime and the transports, set up according to the flags."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

from shortlist.clients.contract import SERVING_DEFAULT
from shortlist.clients.wire.messages import (
    BatchingParameters,
    MonitoringConfig,
    PredictionLog,
    PredictRequest,
    SSLConfig,
)
from shortlist.serving.embedded.api import examples, inference
from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.api.inference import Call, InferenceOptions
from shortlist.serving.embedded.api.interfaces import Servable, ServableSource
from shortlist.serving.embedded.api.limits import (
    MIB,
    UNLIMITED,
    MemoryRoom,
    RequestLimits,
    RequestMemory,
)
from shortlist.serving.embedded.api.metrics import DEFAULT_PATH, Metrics
from shortlist.serving.embedded.api.no_effect import say_once
from shortlist.serving.embedded.api.request_log import RequestLogs
from shortlist.serving.embedded.api.text_files import read_text_message
from shortlist.serving.embedded.grpc.server import (
    REPLACED_ARGUMENTS,
    GrpcOptions,
    GrpcServer,
    start_grpc,
)
from shortlist.serving.embedded.rest.handler import RestOptions, start_rest
from shortlist.serving.embedded.rest.http.connection import HttpLimits
from shortlist.serving.embedded.rest.http.server import HttpServer
from shortlist.serving.embedded.runtime import _tf
from shortlist.serving.embedded.runtime.batching import Batching
from shortlist.serving.embedded.runtime.servable import RuntimeOptions, load_servable, warm_runtime
from shortlist.serving.embedded.runtime.warmup import replay
from shortlist.serving.embedded.settings import Settings

__all__ = ["Backend"]

_MAX_SAMPLE: Final = 4096  # bytes


class Backend:
    """Loader of servables and opener of ports.

    Args:
        settings: Settings of the server.

    Attributes:
        logs: Request logs of the models.

    Raises:
        StatusError: A file named by a flag cannot be read.
    """

    def __init__(self, settings: Settings) -> None:
        self._flags = flags = settings.flags
        self._metrics = Metrics()
        self.logs = RequestLogs(self._metrics, settings.request_log)
        self._inference = InferenceOptions(
            check_method_names=flags.enable_signature_method_name_check,
            tensor_content=flags.enable_serialization_as_tensor_content,
            limits=RequestLimits(
                max_bytes=flags.max_request_bytes,
                max_values=flags.max_request_values,
                max_rows=flags.max_request_rows,
                max_results=flags.max_request_results,
                max_response_bytes=flags.max_response_bytes,
            ),
            room=MemoryRoom(flags.request_memory_mb * MIB),
        )
        self._tags = flags.saved_model_tags.split(",")
        self._runtime = RuntimeOptions(
            session_config=_session_config(settings),
            scann_ops=flags.enable_scann_ops,
            allow_file_ops=flags.allow_file_ops,
        )
        self._ssl = (
            read_text_message(Path(flags.ssl_config_file), SSLConfig())
            if flags.ssl_config_file
            else None
        )
        self._batching = self._make_batching()
        # First warm-up request of each signature: examples in the API's description.
        self._samples: WeakKeyDictionary[Servable, dict[str, PredictRequest]] = WeakKeyDictionary()
        warm_runtime(self._runtime)

    def load(self, name: str, version: int, path: str) -> Servable:
        """Load one version and replay its warm-up records.

        Raises:
            StatusError: The version cannot be loaded, or a warm-up record failed.
        """
        started = time.monotonic()
        _check_folder(name, version, path)
        try:
            servable = load_servable(name, version, path, tags=self._tags, options=self._runtime)
        except StatusError:
            self._metrics.load(path, time.monotonic() - started, ok=False)
            raise
        self._metrics.load(path, time.monotonic() - started, ok=True)
        try:
            samples = self._warm_up(servable, path) if self._flags.enable_model_warmup else {}
            loaded: Servable = servable
            if self._batching:
                loaded = self._batching.wrap(servable, path)
            self._samples[loaded] = samples
            return loaded
        except BaseException:
            servable.close()
            raise

    def start_grpc(self, source: ServableSource) -> GrpcServer:
        """Open the gRPC port, and the socket if there is one.

        Raises:
            OSError: The server cannot listen on this address.
        """
        flags = self._flags
        _check_port(flags.port)  # gRPC would take it modulo 65536
        return start_grpc(
            source,
            host=flags.bind_address,
            port=flags.port,
            socket_path=flags.grpc_socket_path,
            options=GrpcOptions(
                max_threads=max(flags.grpc_max_threads, 0),
                channel_arguments=_channel_arguments(flags.grpc_channel_arguments),
                ssl=self._ssl,
                health_service=flags.enable_grpc_healthcheck_service,
                reflection=flags.enable_docs,
                message_seconds=max(flags.grpc_message_timeout_ms, 1) / 1000,
                inference=self._inference,
            ),
            metrics=self._metrics,
            logs=self.logs,
        )

    def start_rest(self, source: ServableSource, monitoring: MonitoringConfig) -> HttpServer:
        """Open the REST port.

        Raises:
            OSError: The server cannot listen on this address.
        """
        flags = self._flags
        _check_port(flags.rest_api_port)
        prometheus = monitoring.prometheus_config
        return start_rest(
            source,
            host=flags.bind_address,
            port=flags.rest_api_port,
            options=RestOptions(
                threads=max(flags.rest_api_num_threads, 1),
                timeout=flags.rest_api_timeout_in_ms / 1000,
                cors=flags.rest_api_enable_cors_support,
                metrics_path=(prometheus.path or DEFAULT_PATH) if prometheus.enable else None,
                docs=flags.enable_docs,
                samples=lambda servable: self._samples.get(servable, {}),
                limits=HttpLimits(max_body_bytes=flags.max_request_bytes or sys.maxsize),
                inference=self._inference,
            ),
            metrics=self._metrics,
            logs=self.logs,
        )

    def call(self, timeout: float | None) -> Call:
        """Return the context of a call from this process, with a time limit in seconds."""
        return self._call(self._inference, timeout)

    def _call(self, options: InferenceOptions, timeout: float | None = None) -> Call:
        memory = RequestMemory(options.room)
        return Call(options=options, metrics=self._metrics, memory=memory, timeout=timeout)

    def _warm_up(self, servable: Servable, path: str) -> dict[str, PredictRequest]:
        """Replay the warm-up records; return a small request of each signature."""
        samples: dict[str, PredictRequest] = {}

        def execute(entry: PredictionLog) -> None:
            _execute(servable, entry, call)
            request = entry.predict_log.request
            if entry.HasField("predict_log") and request.ByteSize() <= _MAX_SAMPLE:
                samples.setdefault(request.model_spec.signature_name or SERVING_DEFAULT, request)

        # The publisher's records are not limited.
        options = replace(self._inference, limits=UNLIMITED, room=MemoryRoom())
        call = self._call(options)
        started = time.monotonic()
        records = replay(
            path,
            execute,
            read_records=_tf.read_records,
            iterations=max(self._flags.num_request_iterations_for_warmup, 1),
        )
        if records:
            self._metrics.warmup(path, records, time.monotonic() - started, Code.OK.name)
        return samples

    def _make_batching(self) -> Batching | None:
        flags = self._flags
        if not flags.enable_batching:
            return None
        parameters = BatchingParameters()
        if flags.batching_parameters_file:
            read_text_message(Path(flags.batching_parameters_file), parameters)
        return Batching(
            parameters,
            per_model=flags.enable_per_model_batching_parameters,
            metrics=self._metrics,
        )


def _session_config(settings: Settings) -> Any:
    flags = settings.flags
    config = _tf.config_pb2.ConfigProto()
    if flags.tensorflow_session_config_file:
        read_text_message(Path(flags.tensorflow_session_config_file), config)
    if flags.per_process_gpu_memory_fraction:
        fraction = flags.per_process_gpu_memory_fraction
        config.gpu_options.per_process_gpu_memory_fraction = fraction
    if flags.mixed_precision == "bfloat16":
        rewrites = config.graph_options.rewrite_options
        rewrites.auto_mixed_precision_onednn_bfloat16 = rewrites.ON
    config.intra_op_parallelism_threads = settings.intra_op_threads
    config.inter_op_parallelism_threads = settings.inter_op_threads
    return config


def _execute(servable: Servable, entry: PredictionLog, call: Call) -> None:
    kind = entry.WhichOneof("log_type")
    match kind:
        case "predict_log":
            inference.predict(servable, entry.predict_log.request, call)
        case "classify_log":
            examples.classify(servable, entry.classify_log.request, call)
        case "regress_log":
            examples.regress(servable, entry.regress_log.request, call)
        case "multi_inference_log":
            examples.multi_inference(servable, entry.multi_inference_log.request, call)
        case "session_run_log" | "predict_streamed_log":
            number = entry.DESCRIPTOR.fields_by_name[kind].number
            raise StatusError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}")


def _check_folder(name: str, version: int, path: str) -> None:
    """Check that the path is a folder, with the errors of the real server's memory estimate."""
    if os.path.isdir(path):
        return
    code, reason = Code.NOT_FOUND, f"{path} not found"
    if os.path.exists(path):
        code, reason = Code.FAILED_PRECONDITION, f"{path}; Not a directory"
    raise StatusError(
        code,
        "Error while attempting to reserve resources to load servable "
        f"{{name: {name} version: {version}}}: {reason}",
    )


def _check_port(port: int) -> None:
    if not 0 <= port < 2**16:
        raise OSError(f"a port must be between 0 and {2**16 - 1}, got {port}")


def _channel_arguments(text: str) -> list[tuple[str, str | int]]:
    arguments: list[tuple[str, str | int]] = []
    for item in filter(None, text.split(",")):
        key, _, value = item.partition("=")
        if key in REPLACED_ARGUMENTS:
            say_once(
                f"{key} in --grpc_channel_arguments has no effect in the embedded server: "
                f"{REPLACED_ARGUMENTS[key]}"
            )
        number = value.removeprefix("-")
        whole = number.isascii() and number.isdigit()
        arguments.append((key, int(value) if whole else value))
    return arguments
