"""Says which fields of a configuration have no effect in the embedded server."""

import logging
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final

from google.protobuf.message import Message

__all__ = ["fields_without_effect", "say_once"]

log = logging.getLogger(__name__)

_MAX_LINES: Final = 1024


def _always(message: Any) -> bool:
    return True


# By message and field: when it has no effect, and why.
_FIELDS: Final[dict[tuple[str, str], tuple[Callable[[Any], bool], str]]] = {
    ("ModelConfig", "logging_config"): (
        lambda model: not model.logging_config.sampling_config.sampling_rate,
        "sampling_rate is 0, so no request is logged",
    ),
    ("LoggingConfig", "custom_logging_config"): (_always, "there is no other collector"),
    ("SamplingConfig", "attributes"): (_always, "requests are sampled at random"),
    ("SamplingConfig", "per_task_sampling_configs"): (_always, "sampling_rate holds for all"),
    ("BatchingParameters", "thread_pool_name"): (_always, "all models share one pool"),
    ("BatchingParameters", "max_execution_batch_size"): (
        lambda parameters: not parameters.enable_large_batch_splitting.value,
        "enable_large_batch_splitting is not set",
    ),
    ("SSLConfig", "custom_ca"): (
        lambda ssl: not ssl.client_verify,
        "client_verify is not set",
    ),
    ("PrometheusConfig", "path"): (lambda config: not config.enable, "enable is not set"),
    ("ConfigProto", "intra_op_parallelism_threads"): (
        _always,
        "--tensorflow_intra_op_parallelism replaces it",
    ),
    ("ConfigProto", "inter_op_parallelism_threads"): (
        _always,
        "--tensorflow_inter_op_parallelism replaces it",
    ),
}


def fields_without_effect(message: Message, where: str) -> Iterator[str]:
    """Yield a line for each field that is set and has no effect.

    Args:
        message: A configuration.
        where: The file that it comes from, or the request.
    """
    name = getattr(message, "name", "")
    place = f"{where}: {name}" if name and isinstance(name, str) else where
    for field, value in message.ListFields():
        entry = _FIELDS.get((message.DESCRIPTOR.name, field.name))
        if entry is not None and entry[0](message):
            yield f"{place}: {field.name} has no effect in the embedded server: {entry[1]}"
        elif field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        elif isinstance(value, Message):
            yield from fields_without_effect(value, place)
        else:
            for item in value:
                yield from fields_without_effect(item, place)


@lru_cache(_MAX_LINES)
def say_once(line: str) -> None:
    """Log a warning unless it has been logged lately; configurations are read repeatedly."""
    log.warning("%s", line)
