"""What lint says about labels is what a starting server does."""

import re
import signal
from pathlib import Path

import pytest

from shortlist.clients.cli.main import main
from shortlist.serving.rollout.lint import LABELS_FLAG
from tests.support.saved_models import write_saved_model
from tests.support.server_process import serving

pytestmark = pytest.mark.slow

CONFIG = """
model_config_list {{ config {{
  name: "model" base_path: "{base_path}" model_platform: "tensorflow"
  model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
  version_labels {{ key: "stable" value: 1 }}
  version_labels {{ key: "canary" value: 2 }}
}} }}
"""


@pytest.mark.parametrize("allowed", ["true", "false"])
def test_lint_agrees_with_a_starting_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], allowed: str
) -> None:
    for version in (1, 2):
        write_saved_model(tmp_path / "model" / str(version), addend=2)
    config = tmp_path / "models.config"
    config.write_text(CONFIG.format(base_path=tmp_path / "model"))
    flag = f"{LABELS_FLAG}={allowed}"
    status = main(["rollout", "lint", "--config", str(config), flag])
    said = capsys.readouterr().out
    with serving(tmp_path, f"--model_config_file={config}", flag) as server:
        if allowed == "true":
            server.wait_open()
            assert server.terminate() == -signal.SIGTERM
            assert (status, said) == (0, f"{config}: no findings\n")
        else:
            assert server.process.wait(60) == 255
            refusal = "Request to assign label to version . of model model, which is not currently"
            assert status == 1
            assert re.search(refusal, said)
            assert re.search(refusal, server.log)
