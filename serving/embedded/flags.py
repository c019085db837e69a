"""TensorFlow Serving's command-line flags, with its parsing rules, and a few of our own.

The real server accepts only `--name=value`. For `--name value`, an unknown flag or a
positional argument it names the argument, prints the usage and starts; for a value that does
not parse it prints the usage and exits.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shortlist.clients.contract import USER_ID
from shortlist.serving.embedded.api.limits import MIB, RequestLimits, default_memory

__all__ = ["LIMIT_FLAGS", "Flags", "ParsedFlags", "parse_flags", "usage"]

_CPUS: Final = len(os.sched_getaffinity(0))
_INT32: Final = 2**31
_INT64: Final = 2**63


def _flag(kind: str, default: Any, help_: str, *, no_effect: str = "", own: bool = False) -> Any:
    metadata = {"kind": kind, "help": help_, "no_effect": no_effect, "own": own}
    return field(default=default, metadata=metadata)


_NO_TFLITE: Final = "TensorFlow Lite models are not served"
_NO_XLA: Final = "the installed TensorFlow decides about XLA"


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Values of all flags, by name."""

    port: int = _flag("int32", 8500, "TCP port of the gRPC API; 0 for none.")
    grpc_socket_path: str = _flag("string", "", "Additional UNIX socket of the gRPC API.")
    rest_api_port: int = _flag(
        "int32", 0, "TCP port of the REST API, other than --port; 0 for none."
    )
    rest_api_num_threads: int = _flag(
        "int32", 4 * _CPUS, "Threads of the REST API; by default 4 per CPU."
    )
    rest_api_timeout_in_ms: int = _flag("int32", 30000, "Time limit of a REST call.")
    rest_api_enable_cors_support: bool = _flag("bool", False, "Add CORS headers to REST answers.")
    enable_batching: bool = _flag("bool", False, "Run waiting requests together.")
    allow_version_labels_for_unavailable_models: bool = _flag(
        "bool", False, "Let a new label point at a version that is not available yet."
    )
    batching_parameters_file: str = _flag(
        "string", "", "BatchingParameters as protobuf text; only with --enable_batching."
    )
    enable_per_model_batching_parameters: bool = _flag(
        "bool", False, "Read batching parameters from each version's batching_params.pbtxt."
    )
    model_config_file: str = _flag(
        "string",
        "",
        "ModelServerConfig as protobuf text: the models to serve. --model_name and "
        "--model_base_path are then ignored.",
    )
    model_config_file_poll_wait_seconds: int = _flag(
        "int32", 0, "Seconds between two reads of --model_config_file; 0 reads it once."
    )
    model_name: str = _flag("string", "default", "Name of the single model to serve.")
    model_base_path: str = _flag("string", "", "Folder of the single model's versions.")
    num_load_threads: int = _flag(
        "int32", 0, "Versions that load at a time, after the first configuration; 0 counts as 1."
    )
    num_unload_threads: int = _flag(
        "int32",
        0,
        "Versions that unload at a time.",
        no_effect="every version unloads as soon as its last request is answered",
    )
    max_num_load_retries: int = _flag("int32", 5, "Retries of a failed load.")
    load_retry_interval_micros: int = _flag(
        "int64", 60_000_000, "Microseconds between two attempts; negative values do not wait."
    )
    file_system_poll_wait_seconds: int = _flag(
        "int32",
        1,
        "Seconds between two polls for new versions; 0 polls once, negative values never.",
    )
    flush_filesystem_caches: bool = _flag(
        "bool",
        True,
        "Drop files from the page cache after loading.",
        no_effect="the operating system manages the page cache",
    )
    tensorflow_session_parallelism: int = _flag(
        "int64", 0, "Threads within one op, and ops at a time; 0 for automatic."
    )
    tensorflow_session_config_file: str = _flag(
        "string", "", "TensorFlow's ConfigProto as protobuf text."
    )
    tensorflow_intra_op_parallelism: int = _flag(
        "int64", 0, "Threads within one op; 0 for automatic."
    )
    tensorflow_inter_op_parallelism: int = _flag(
        "int64", 0, "Ops that run at a time; 0 for automatic."
    )
    use_alts_credentials: bool = _flag(
        "bool", False, "Google ALTS credentials for gRPC; not supported here."
    )
    ssl_config_file: str = _flag("string", "", "SSLConfig as protobuf text: TLS for gRPC.")
    platform_config_file: str = _flag(
        "string",
        "",
        "PlatformConfigMap as protobuf text, instead of the TensorFlow platform.",
        no_effect="the other flags set up sessions, batching and warm-up",
    )
    per_process_gpu_memory_fraction: float = _flag(
        "float", 0.0, "Share of a GPU's memory to use, from 0 to 1; 0 for automatic."
    )
    saved_model_tags: str = _flag(
        "string", "serve", "Comma-separated tags of the graph to load from a SavedModel."
    )
    grpc_channel_arguments: str = _flag(
        "string", "", "gRPC server arguments, such as grpc.max_connection_age_ms=2000,..."
    )
    grpc_max_threads: int = _flag(
        "int32", 4 * _CPUS, "Maximum number of gRPC calls at a time; by default 4 per CPU."
    )
    enable_model_warmup: bool = _flag(
        "bool", True, "Replay a version's warm-up records before it serves."
    )
    num_request_iterations_for_warmup: int = _flag(
        "int32", 0, "Runs of each warm-up record; 0 counts as 1."
    )
    version: bool = _flag("bool", False, "Print the version and exit.")
    monitoring_config_file: str = _flag(
        "string", "", "MonitoringConfig as protobuf text: the Prometheus page."
    )
    remove_unused_fields_from_bundle_metagraph: bool = _flag(
        "bool",
        True,
        "Keep only the signatures of a loaded MetaGraphDef.",
        no_effect="only the signatures are ever kept",
    )
    prefer_tflite_model: bool = _flag(
        "bool", False, "Serve model.tflite if there is one.", no_effect=_NO_TFLITE
    )
    num_tflite_pools: int = _flag(
        "int32", _CPUS, "TensorFlow Lite interpreter pools.", no_effect=_NO_TFLITE
    )
    num_tflite_interpreters_per_pool: int = _flag(
        "int32", 1, "TensorFlow Lite interpreters in a pool.", no_effect=_NO_TFLITE
    )
    enable_signature_method_name_check: bool = _flag(
        "bool", False, "Check the method names of signatures."
    )
    xla_cpu_compilation_enabled: bool = _flag("bool", False, "XLA for the CPU.", no_effect=_NO_XLA)
    xla_gpu_compilation_enabled: bool = _flag(
        "bool", False, "XLA for CPU and GPU.", no_effect=_NO_XLA
    )
    enable_profiler: bool = _flag(
        "bool", True, "Provide the profiler service.", no_effect="there is no profiler service"
    )
    thread_pool_factory_config_file: str = _flag(
        "string",
        "",
        "ThreadPoolFactoryConfig as protobuf text.",
        no_effect="TensorFlow's own thread pools run all ops",
    )
    mixed_precision: str = _flag("string", "", "Run in mixed precision: bfloat16.")
    skip_initialize_tpu: bool = _flag(
        "bool", False, "Do not initialise TPUs.", no_effect="TPUs are not used"
    )
    enable_grpc_healthcheck_service: bool = _flag("bool", False, "Provide gRPC's health service.")
    enable_serialization_as_tensor_content: bool = _flag(
        "bool", False, "Answer predict calls with tensor_content instead of typed fields."
    )

    bind_address: str = _flag(
        "string",
        "127.0.0.1",
        "Address to listen on. There is no authentication: beyond loopback, anyone who reaches it "
        "can use the models and replace the configuration.",
        own=True,
    )
    enable_scann_ops: bool = _flag("bool", True, "Register the ScaNN ops.", own=True)
    allow_file_ops: bool = _flag(
        "bool",
        False,
        "Load models with ops that read or write files, open sockets, run Python or print.",
        own=True,
    )
    enable_docs: bool = _flag(
        "bool",
        True,
        "Describe the APIs: /docs and /openapi.json over REST, reflection over gRPC.",
        own=True,
    )
    drain_seconds: int = _flag(
        "int32", 10, "Seconds to wait for calls in flight after SIGTERM.", own=True
    )
    grpc_message_timeout_ms: int = _flag(
        "int32", 10_000, "Time limit for the message of a gRPC call.", own=True
    )
    max_request_bytes: int = _flag(
        "int64",
        RequestLimits.max_bytes,
        "Maximum size of a request, before and after unzipping; 0 for no limit.",
        own=True,
    )
    max_request_values: int = _flag(
        "int64",
        RequestLimits.max_values,
        "Maximum number of strings, JSON values and filled-in numbers of a request; 0 for no "
        "limit.",
        own=True,
    )
    max_request_rows: int = _flag(
        "int64",
        RequestLimits.max_rows,
        "Maximum first dimension of a request's tensors; 0 for no limit.",
        own=True,
    )
    max_request_results: int = _flag(
        "int64",
        RequestLimits.max_results,
        "Maximum number of rows times k of a request; 0 for no limit.",
        own=True,
    )
    max_response_bytes: int = _flag(
        "int64",
        RequestLimits.max_response_bytes,
        "Maximum size of a request's outputs; 0 for no limit.",
        own=True,
    )
    request_memory_mb: int = _flag(
        "int32",
        default_memory() // MIB,
        "Memory for all requests together in MiB; by default a quarter of the memory, from 128 "
        "to 1024; 0 for no limit.",
        own=True,
    )
    request_log_user_ids: str = _flag(
        "string", "keep", "User ids in request logs: keep, hash or drop.", own=True
    )
    request_log_key_file: str = _flag(
        "string", "", "File with the key of hashed user ids, 16 to 64 bytes.", own=True
    )
    request_log_user_inputs: str = _flag(
        "string", USER_ID, "Comma-separated inputs that hold user ids.", own=True
    )
    request_log_queue_mb: int = _flag(
        "int32", 64, "MiB of records that may wait to be written; more are dropped.", own=True
    )
    request_log_file_mb: int = _flag(
        "int32", 64, "Compressed size in MiB at which a file of a request log ends.", own=True
    )
    request_log_file_seconds: int = _flag(
        "int32", 3600, "Seconds after which a file of a request log ends.", own=True
    )
    request_log_max_mb: int = _flag(
        "int64",
        10240,
        "MiB of all request logs to keep, the oldest files go first; 0 for no limit.",
        own=True,
    )


LIMIT_FLAGS: Final = (
    *("max_request_bytes", "max_request_values", "max_request_rows", "max_request_results"),
    *("max_response_bytes", "request_memory_mb"),
)
_FIELDS: Final = {spec.name: spec for spec in dataclasses.fields(Flags)}


@dataclass(frozen=True, kw_only=True)
class ParsedFlags:
    """A parsed command line.

    Attributes:
        flags: Values of all flags.
        present: Names of the flags on the command line.
        errors: A line for each value that does not parse; the server must not start.
        unknown: Arguments that are not flags of the server, in order.
    """

    flags: Flags
    present: frozenset[str]
    errors: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def no_effect(self) -> list[str]:
        """A line for each flag on the command line that has no effect here, with these others."""
        lines = []
        for name in sorted(self.present):
            reason = _FIELDS[name].metadata["no_effect"]
            if not reason and name in _NEEDS:
                has_effect, text = _NEEDS[name]
                reason = "" if has_effect(self.flags) else text
            if reason:
                lines.append(f"--{name} has no effect in the embedded server: {reason}")
        return lines


# When a flag has an effect, and why not otherwise.
_NO_REST: Final = (
    lambda flags: flags.rest_api_port != 0,
    "there is no REST API without --rest_api_port",
)
_SINGLE_MODEL: Final = (
    lambda flags: not flags.model_config_file,
    "--model_config_file lists the models",
)
_NEEDS: Final[dict[str, tuple[Callable[[Flags], bool], str]]] = {
    "rest_api_num_threads": _NO_REST,
    "rest_api_timeout_in_ms": _NO_REST,
    "rest_api_enable_cors_support": _NO_REST,
    "monitoring_config_file": _NO_REST,
    "model_name": _SINGLE_MODEL,
    "model_base_path": _SINGLE_MODEL,
    "model_config_file_poll_wait_seconds": (
        lambda flags: bool(flags.model_config_file),
        "there is no --model_config_file",
    ),
    "enable_per_model_batching_parameters": (
        lambda flags: flags.enable_batching,
        "--enable_batching is not set",
    ),
    "tensorflow_session_parallelism": (
        lambda flags: (
            flags.tensorflow_intra_op_parallelism <= 0
            and flags.tensorflow_inter_op_parallelism <= 0
        ),
        "--tensorflow_intra_op_parallelism and --tensorflow_inter_op_parallelism replace it",
    ),
    "num_request_iterations_for_warmup": (
        lambda flags: flags.enable_model_warmup,
        "--enable_model_warmup=false",
    ),
    "load_retry_interval_micros": (
        lambda flags: flags.max_num_load_retries > 0,
        "--max_num_load_retries=0",
    ),
    "mixed_precision": (
        lambda flags: flags.mixed_precision in ("", "bfloat16"),
        "the only value is bfloat16",
    ),
}


def _integer(text: str, limit: int) -> int | None:
    # Like scanf's %d: white space and a sign before the digits, nothing after them.
    match = re.fullmatch(r"[ \t\n\v\f\r]*([+-]?[0-9]{1,19})", text, re.ASCII)
    value = int(match[1]) if match else limit
    return value if -limit <= value < limit else None


def _float(text: str) -> float | None:
    if "_" in text or text != text.rstrip():
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _boolean(text: str) -> bool | None:
    return {"true": True, "1": True, "false": False, "0": False}.get(text.lower())


_PARSERS: Final[dict[str, Callable[[str], Any]]] = {
    "int32": lambda text: _integer(text, _INT32),
    "int64": lambda text: _integer(text, _INT64),
    "float": _float,
    "bool": _boolean,
    "string": lambda text: text,
}


def parse_flags(argv: Sequence[str]) -> ParsedFlags:
    """Parse a command line without the program's name; of equal flags the last counts."""
    values: dict[str, Any] = {}
    errors: list[str] = []
    unknown: list[str] = []
    for index, argument in enumerate(argv):
        if argument == "--":
            unknown += argv[index:]
            break
        name, equals, text = argument.removeprefix("--").partition("=")
        spec = _FIELDS.get(name) if argument.startswith("--") else None
        if spec is None or not (equals or spec.metadata["kind"] == "bool"):
            unknown.append(argument)
            continue
        value = _PARSERS[spec.metadata["kind"]](text) if equals else True
        if value is None:
            errors.append(f"Couldn't interpret value {text} for flag {name}.")
        else:
            values[name] = value
    return ParsedFlags(
        flags=Flags(**values),
        present=frozenset(values),
        errors=tuple(errors),
        unknown=tuple(unknown),
    )


def usage(program: str) -> str:
    """Return all flags with type, default and meaning, and an example to paste."""
    lines = [f"usage: {program}", "Flags:"]
    own = False
    for spec in _FIELDS.values():
        if spec.metadata["own"] and not own:
            own = True
            lines.append("Flags of the embedded server alone:")
        default = spec.default
        shown = f'"{default}"' if isinstance(default, str) else f"{default}".lower()
        if spec.metadata["kind"] == "float":
            shown = f"{default:f}"
        text = spec.metadata["help"]
        if spec.metadata["no_effect"]:
            text += f" No effect here: {spec.metadata['no_effect']}."
        lines.append(f"\t{f'--{spec.name}={shown}':<33}\t{spec.metadata['kind']}\t{text}")
    lines.append(
        "Example: python -m shortlist.serving.embedded --rest_api_port=8501 "
        "--model_name=retrieval_brute_force --model_base_path=$PWD/models/retrieval_brute_force"
    )
    return "\n".join(lines) + "\n"
