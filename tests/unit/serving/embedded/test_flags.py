import pytest

from shortlist.serving.embedded.flags import parse_flags, usage


def test_values_come_after_an_equals_sign() -> None:
    parsed = parse_flags(["--port=1", "--model_name=m=n", "--per_process_gpu_memory_fraction=0.5"])
    assert parsed.flags.port == 1
    assert parsed.flags.model_name == "m=n"
    assert parsed.flags.per_process_gpu_memory_fraction == 0.5
    assert not parsed.errors
    assert not parsed.unknown


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--enable_batching", True),
        ("--enable_batching=true", True),
        ("--enable_batching=TRUE", True),
        ("--enable_batching=1", True),
        ("--enable_batching=False", False),
        ("--enable_batching=0", False),
    ],
)
def test_boolean_forms(argument: str, value: bool) -> None:
    assert parse_flags([argument]).flags.enable_batching is value


@pytest.mark.parametrize(
    "argument",
    ["--no_such_flag=1", "-port=1", "port", "extra", "--port", "--enable_batchingx", "--help"],
)
def test_unknown_argument_is_returned(argument: str) -> None:
    parsed = parse_flags([argument])
    assert parsed.unknown == (argument,)
    assert not parsed.errors


def test_value_after_a_space_is_not_accepted() -> None:
    parsed = parse_flags(["--port", "1", "--rest_api_port=2"])
    assert parsed.flags.port == 8500
    assert parsed.flags.rest_api_port == 2
    assert parsed.unknown == ("--port", "1")


def test_nothing_is_parsed_after_two_dashes() -> None:
    parsed = parse_flags(["--port=1", "--", "--port=2"])
    assert parsed.flags.port == 1
    assert parsed.unknown == ("--", "--port=2")


@pytest.mark.parametrize(
    "argument",
    [
        "--port=",
        "--port=x",
        "--port=1 ",
        "--port=0x10",
        "--port=1.0",
        "--port=2147483648",
        "--enable_batching=yes",
        "--enable_batching=",
        "--per_process_gpu_memory_fraction=much",
    ],
)
def test_value_that_does_not_parse_is_an_error(argument: str) -> None:
    name, _, value = argument.removeprefix("--").partition("=")
    assert parse_flags([argument]).errors == (f"Couldn't interpret value {value} for flag {name}.",)


def test_last_of_equal_flags_counts() -> None:
    assert parse_flags(["--port=1", "--port=2"]).flags.port == 2


def test_flag_without_effect_says_why() -> None:
    parsed = parse_flags(["--prefer_tflite_model=true", "--port=1"])
    assert parsed.no_effect == [
        (
            "--prefer_tflite_model has no effect in the embedded server: "
            "TensorFlow Lite models are not served"
        )
    ]


def test_usage_lists_every_flag_and_ends_in_an_example() -> None:
    text = usage("server")
    assert text.startswith("usage: server\nFlags:\n")
    assert '--saved_model_tags="serve"' in text
    assert "--per_process_gpu_memory_fraction=0.000000" in text
    assert text.splitlines()[-1].startswith("Example: python -m shortlist.serving.embedded ")


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        ("--rest_api_num_threads=4", "rest_api_num_threads"),
        ("--model_config_file=/c --model_name=m", "model_name"),
        ("--model_config_file_poll_wait_seconds=5", "model_config_file_poll_wait_seconds"),
        ("--enable_per_model_batching_parameters", "enable_per_model_batching_parameters"),
        ("--num_request_iterations_for_warmup=3 --enable_model_warmup=false",
         "num_request_iterations_for_warmup"),
        ("--load_retry_interval_micros=1 --max_num_load_retries=0", "load_retry_interval_micros"),
        ("--mixed_precision=float16", "mixed_precision"),
        ("--tensorflow_session_parallelism=1 --tensorflow_intra_op_parallelism=1",
         "tensorflow_session_parallelism"),
    ],
)  # fmt: skip
def test_flag_without_effect_beside_others_says_so(argv: str, name: str) -> None:
    [line] = parse_flags(argv.split()).no_effect
    assert line.startswith(f"--{name} has no effect in the embedded server: ")


@pytest.mark.parametrize(
    "argv",
    [
        "--rest_api_port=1 --rest_api_num_threads=4",
        "--model_name=m --model_base_path=/m",
        "--enable_batching --enable_per_model_batching_parameters",
        "--mixed_precision=bfloat16",
        "--load_retry_interval_micros=1",
    ],
)
def test_flag_with_effect_says_nothing(argv: str) -> None:
    assert parse_flags(argv.split()).no_effect == []
