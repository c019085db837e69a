import logging
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.no_effect import fields_without_effect
from shortlist.serving.embedded.api.text_files import read_text_message


@pytest.mark.parametrize(
    ("message", "text", "field"),
    [
        (messages.BatchingParameters(), "thread_pool_name { value: 'a' }", "thread_pool_name"),
        (
            messages.BatchingParameters(),
            "max_execution_batch_size { value: 8 }",
            "max_execution_batch_size",
        ),
        (messages.SSLConfig(), "custom_ca: 'x'", "custom_ca"),
        (messages.MonitoringConfig(), "prometheus_config { path: '/x' }", "path"),
        (
            messages.ModelServerConfig(),
            (
                "model_config_list { config { name: 'm' logging_config { log_collector_config { "
                "filename_prefix: '/m' } } } }"
            ),
            "logging_config",
        ),
    ],
)
def test_field_without_effect_is_named_with_its_place(message: Any, text: str, field: str) -> None:
    [line] = fields_without_effect(text_format.Parse(text, message), "a.config")
    place = "a.config: m" if field == "logging_config" else "a.config"
    assert line.startswith(f"{place}: {field} has no effect in the embedded server: ")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (messages.SSLConfig(), "custom_ca: 'x' client_verify: true"),
        (messages.MonitoringConfig(), "prometheus_config { path: '/x' enable: true }"),
        (
            messages.BatchingParameters(),
            (
                "max_execution_batch_size { value: 8 } enable_large_batch_splitting { value: true }"
                " allowed_batch_sizes: 8"
            ),
        ),
        (
            messages.ModelServerConfig(),
            "model_config_list { config { name: 'm' version_labels { key: 'a' value: 1 } } }",
        ),
        (
            messages.ModelServerConfig(),
            (
                "model_config_list { config { name: 'm' logging_config { sampling_config { "
                "sampling_rate: 1 } } } }"
            ),
        ),
    ],
)
def test_field_with_effect_is_not_named(message: Any, text: str) -> None:
    assert list(fields_without_effect(text_format.Parse(text, message), "a.config")) == []


def test_file_that_is_read_again_says_it_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "models.config"
    path.write_text("model_config_list { config { name: 'm' logging_config {} } }")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            read_text_message(path, messages.ModelServerConfig())
    [line] = [record.getMessage() for record in caplog.records]
    assert line == (
        f"{path}: m: logging_config has no effect in the embedded server: sampling_rate is 0, "
        "so no request is logged"
    )
