from pathlib import Path

import pytest

from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.flags import parse_flags
from shortlist.serving.embedded.settings import Settings, read_settings


def read(*argv: str) -> Settings:
    return read_settings(parse_flags(argv).flags)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--max_request_rows=-1"], "--max_request_rows must be at least 0, .* got -1"),
        (["--model_base_path=/m", "--request_log_queue_mb=0"], "must be above 0, got 0"),
        (["--model_base_path=/m", "--request_log_max_mb=-1"], "must be at least 0, .* got -1"),
        (["--model_base_path=/m", "--request_log_user_ids=mask"], "one of keep, hash, drop"),
        (["--model_base_path=/m", "--request_log_user_ids=hash"], "needs a key"),
        (["--model_base_path=/m", "--request_log_key_file=/no"], "cannot be read: No such file"),
        (["--port=0"], "At least one of server_options.grpc_port or "),
        (["--use_alts_credentials", "--ssl_config_file=x"], "ssl_config_file must be empty"),
        ([], "Both server_options.model_base_path and server_options.model_config_file are empty!"),
        (
            ["--model_base_path=/m", "--batching_parameters_file=x"],
            "without setting server_options.enable_batching to true",
        ),
        (
            [
                "--model_base_path=/m",
                "--tensorflow_session_parallelism=1",
                "--tensorflow_intra_op_parallelism=1",
                "--tensorflow_inter_op_parallelism=1",
            ],
            "You cannot configure all",
        ),
    ],
)
def test_contradictory_flags_are_refused(argv: list[str], message: str) -> None:
    with pytest.raises(StatusError, match=message) as caught:
        read(*argv)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_alts_is_refused_rather_than_ignored() -> None:
    with pytest.raises(StatusError, match="use --ssl_config_file for TLS"):
        read("--use_alts_credentials", "--model_base_path=/m")


def test_flags_configure_a_single_model() -> None:
    (model,) = read("--model_name=m", "--model_base_path=/m").models.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("m", "/m", "tensorflow")


def test_request_logs_have_bounds_and_a_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(bytes(range(16)) + b"\n")
    options = read(
        "--model_base_path=/m",
        "--request_log_user_ids=hash",
        f"--request_log_key_file={tmp_path}/key",
        "--request_log_user_inputs=user_id,customer",
        "--request_log_max_mb=0",
    ).request_log
    assert options.user_ids.key == bytes(range(16))
    assert options.user_ids.inputs == ("user_id", "customer")
    assert options.max_bytes is None
    assert read("--model_base_path=/m").request_log.max_bytes == 10 * 2**30


def test_session_threads_are_set_together_or_separately() -> None:
    both = read("--model_base_path=/m", "--tensorflow_session_parallelism=3")
    assert (both.intra_op_threads, both.inter_op_threads) == (3, 3)
    separate = read("--model_base_path=/m", "--tensorflow_intra_op_parallelism=2")
    assert (separate.intra_op_threads, separate.inter_op_threads) == (2, 0)


def test_configuration_with_comments_and_joined_strings(tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text(
        "# a comment\nmodel_config_list: {\n config: { name: 'm' # tail\n"
        ' base_path: "/models" "/m"; model_platform: "tensorflow", }\n}\n'
    )
    (model,) = read(f"--model_config_file={file}").models.model_config_list.config
    assert model.base_path == "/models/m"


def test_unreadable_configuration_file_is_refused(tmp_path: Path) -> None:
    absent, empty, broken = tmp_path / "absent", tmp_path / "empty", tmp_path / "broken"
    empty.touch()
    broken.write_text('model_config_list { config { name: "m"')
    for file, code, message in (
        (absent, Code.NOT_FOUND, f"{absent}; No such file or directory"),
        (empty, Code.INVALID_ARGUMENT, f"{empty}; Invalid argument"),
        (broken, Code.INVALID_ARGUMENT, f"Invalid protobuf file: '{broken}'"),
        (tmp_path, Code.NOT_FOUND, f"{tmp_path}; No such device"),
    ):
        with pytest.raises(StatusError) as caught:
            read(f"--model_config_file={file}")
        assert (caught.value.code, caught.value.message) == (code, message)
