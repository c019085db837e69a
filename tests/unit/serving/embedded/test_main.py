"""What the server's process gives up and takes before it starts."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[1])))
from shortlist.serving.embedded.__main__ import prepare_process
prepare_process()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
print([line for line in open("/proc/self/status") if line.startswith("NoNewPrivs")][0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
@pytest.mark.parametrize("hard", [64, 200])
def test_open_files_as_many_as_allowed_and_no_new_privileges(hard: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(hard)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(hard), str(hard), "NoNewPrivs:", "1"]
