"""From flags to settings, with all checks that do not need TensorFlow."""

from dataclasses import dataclass
from pathlib import Path

from shortlist.clients.request_log.user_ids import UserIds
from shortlist.clients.wire.messages import ModelServerConfig
from shortlist.serving.embedded.api.errors import Code, StatusError, invalid
from shortlist.serving.embedded.api.limits import MIB
from shortlist.serving.embedded.api.request_log import RequestLogOptions, log_settings
from shortlist.serving.embedded.api.text_files import read_text_message
from shortlist.serving.embedded.flags import LIMIT_FLAGS, Flags
from shortlist.serving.embedded.lifecycle.model_config import (
    check_list,
    models_of,
    single_model,
)

__all__ = ["Settings", "read_settings"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Checked settings of the server.

    Attributes:
        flags: The command line.
        models: The first configuration.
        request_log: Options of the request logs.
        intra_op_threads: Threads within one op; 0 for automatic.
        inter_op_threads: Ops that run at a time; 0 for automatic.
    """

    flags: Flags
    models: ModelServerConfig
    request_log: RequestLogOptions
    intra_op_threads: int
    inter_op_threads: int


def read_settings(flags: Flags) -> Settings:
    """Read the files named by flags, and check that the flags fit together.

    The order is the real server's, so that the same of several errors is reported.

    Raises:
        StatusError: Flags contradict each other, or a file cannot be read.
    """
    for name in LIMIT_FLAGS:
        value = getattr(flags, name)
        if value < 0:
            raise invalid(f"--{name} must be at least 0, which stands for no limit; got {value}")
    if not flags.port and not flags.grpc_socket_path:
        raise invalid(
            "At least one of server_options.grpc_port or server_options.grpc_socket_path "
            "must be set."
        )
    if flags.use_alts_credentials and flags.ssl_config_file:
        raise invalid("Either use_alts_credentials must be false or ssl_config_file must be empty.")
    if flags.use_alts_credentials:
        # Without this check the server would use plain text.
        raise StatusError(
            Code.UNIMPLEMENTED,
            "The embedded server does not support ALTS; use --ssl_config_file for TLS.",
        )
    if not flags.model_base_path and not flags.model_config_file:
        raise invalid(
            "Both server_options.model_base_path and server_options.model_config_file are empty!"
        )
    if flags.model_config_file:
        models = read_text_message(Path(flags.model_config_file), ModelServerConfig())
    else:
        models = single_model(flags.model_name, flags.model_base_path)
    if flags.batching_parameters_file and not flags.enable_batching:
        raise invalid(
            "server_options.batching_parameters_file is set without setting "
            "server_options.enable_batching to true."
        )
    intra, inter = _threads(flags)
    # The core checks this again, for every configuration; here TensorFlow is not loaded yet.
    check_list(models)
    models_of(models)
    log_settings(models)
    return Settings(
        flags=flags,
        models=models,
        request_log=_request_log(flags),
        intra_op_threads=intra,
        inter_op_threads=inter,
    )


def _request_log(flags: Flags) -> RequestLogOptions:
    for name in ("request_log_queue_mb", "request_log_file_mb", "request_log_file_seconds"):
        if getattr(flags, name) <= 0:
            raise invalid(f"--{name} must be above 0, got {getattr(flags, name)}")
    if flags.request_log_max_mb < 0:
        raise invalid(
            "--request_log_max_mb must be at least 0, which stands for no limit; got "
            f"{flags.request_log_max_mb}"
        )
    return RequestLogOptions(
        user_ids=_user_ids(flags),
        queue_bytes=flags.request_log_queue_mb * MIB,
        max_file_bytes=flags.request_log_file_mb * MIB,
        max_file_age=float(flags.request_log_file_seconds),
        max_bytes=flags.request_log_max_mb * MIB or None,
    )


def _user_ids(flags: Flags) -> UserIds:
    key = None
    try:
        if flags.request_log_key_file:
            key = Path(flags.request_log_key_file).read_bytes().removesuffix(b"\n")
        inputs = tuple(name for name in flags.request_log_user_inputs.split(",") if name)
        return UserIds(ids=flags.request_log_user_ids, key=key, inputs=inputs)
    except OSError as exc:
        raise invalid(
            f"--request_log_key_file={flags.request_log_key_file} cannot be read: {exc.strerror}"
        ) from exc
    except ValueError as exc:
        raise invalid(
            f"--request_log_user_ids={flags.request_log_user_ids} and --request_log_key_file: {exc}"
        ) from exc


def _threads(flags: Flags) -> tuple[int, int]:
    session = flags.tensorflow_session_parallelism
    intra = flags.tensorflow_intra_op_parallelism
    inter = flags.tensorflow_inter_op_parallelism
    if session > 0 and intra > 0 and inter > 0:
        raise invalid(
            "Either configure server_options.tensorflow_session_parallelism or "
            "(server_options.tensorflow_intra_op_parallelism, "
            "server_options.tensorflow_inter_op_parallelism) separately. "
            "You cannot configure all."
        )
    if intra > 0 or inter > 0:
        return intra, inter
    return session, session
