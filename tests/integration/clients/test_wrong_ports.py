"""The two ports of the embedded server, confused."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shortlist.clients.cli.main import main
from shortlist.clients.errors import WrongPort
from shortlist.serving.repository.server_config import CONFIG_FILE
from tests.support.recorded import MODELS
from tests.support.server_process import ServerProcess, serving
from tests.unit.clients.conftest import make_client

pytestmark = pytest.mark.slow

MODEL = "half_plus_two"


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    flags = f"--model_name={MODEL}", f"--model_base_path={MODELS / MODEL}"
    with serving(tmp_path_factory.mktemp("server"), *flags) as process:
        process.wait_open()
        yield process


def test_each_client_names_the_other_port(embedded: ServerProcess, transport: str) -> None:
    port, spoken = (
        (embedded.grpc_port, "speaks gRPC, not REST")
        if transport == "rest"
        else (embedded.rest_port, "speaks REST, not gRPC")
    )
    with (
        make_client(transport, f"127.0.0.1:{port}", model=MODEL) as client,
        pytest.raises(WrongPort, match=f"^127.0.0.1:{port} {spoken}"),
    ):
        client.predict({"x": [1.0]})


def test_a_rollout_verb_names_the_grpc_port(
    embedded: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / MODEL / "1").mkdir(parents=True)
    (tmp_path / MODEL / "1" / "saved_model.pb").touch()
    config = tmp_path / CONFIG_FILE
    config.parent.mkdir()
    config.write_text(
        f'model_config_list {{ config {{ name: "{MODEL}" base_path: "{tmp_path / MODEL}" '
        'model_platform: "tensorflow" } }'
    )
    address = f"127.0.0.1:{embedded.rest_port}"
    for verb in (["versions"], ["canary", "1", "--servable", MODEL], ["prune", "--keep", "1"]):
        assert main([*verb, "--repository", str(tmp_path), "--address", address]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err == (
            f"shortlist: error: {address} speaks REST, not gRPC; use the gRPC port (8500 by "
            "default)\n"
        )
