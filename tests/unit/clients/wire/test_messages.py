import subprocess
import sys
from pathlib import Path

from google.protobuf import text_format

from shortlist.clients.wire import messages, methods

METHODS = [value for value in vars(methods).values() if isinstance(value, methods.Method)]


def test_paths_are_those_of_tensorflow_serving() -> None:
    assert methods.PREDICT.path == "/tensorflow.serving.PredictionService/Predict"
    assert (
        methods.HANDLE_RELOAD_CONFIG_REQUEST.path
        == "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
    )
    assert len({method.path for method in METHODS}) == len(METHODS)


def test_a_model_config_file_is_read_and_written() -> None:
    text = """model_config_list {
  config {
    name: "retrieval_ivf"
    base_path: "/models/retrieval_ivf"
    model_platform: "tensorflow"
    logging_config { sampling_config { sampling_rate: 0.5 } }
    model_version_policy { specific { versions: 1 versions: 2 } }
    version_labels { key: "stable" value: 1 }
  }
}
"""
    config = text_format.Parse(text, messages.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert list(model.model_version_policy.specific.versions) == [1, 2]
    assert dict(model.version_labels) == {"stable": 1}
    again = text_format.Parse(text_format.MessageToString(config), messages.ModelServerConfig())
    assert again == config


def test_fields_of_a_newer_server_survive() -> None:
    newer = messages.ModelSpec(name="x").SerializeToString() + b"\xa2\x06\x03abc"  # field 100
    spec = messages.ModelSpec.FromString(newer)
    assert spec.SerializeToString() == newer


def test_every_message_is_exported() -> None:
    assert messages.__all__ == sorted(messages.__all__)
    for method in METHODS:
        assert method.request.DESCRIPTOR.name in messages.__all__
        assert method.response.DESCRIPTOR.name in messages.__all__


def test_generated_code_makes_no_demand_on_the_runtime() -> None:
    # protoc from 27 on writes a check that refuses or warns on another major version.
    generated = list(Path(messages.__file__).parent.glob("*_pb2.py"))
    assert len(generated) == 10
    for path in generated:
        assert "runtime_version" not in path.read_text(encoding="utf-8"), path
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import shortlist.clients.wire.messages"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
