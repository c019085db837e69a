"""What the server's process gives up and takes before it starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[1])))
from shortlist.serving.embedded.__main__ import prepare_process
prepare_process()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
print([line for line in open("/proc/self/status") if line.startswith("NoNewPrivs")][0])
"""
ARENAS = """
import ctypes, sys, threading
from shortlist.serving.embedded.__main__ import prepare_process
prepare_process()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
together = threading.Barrier(64)
def allocate():
    together.wait()
    libc.malloc(ctypes.c_size_t(1000))
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(64)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
print(sys.getswitchinterval())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
@pytest.mark.parametrize("hard", [64, 200])
def test_open_files_as_many_as_allowed_and_no_new_privileges(hard: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(hard)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(hard), str(hard), "NoNewPrivs:", "1"]


@pytest.mark.skipif(sys.platform != "linux", reason="another allocator")
@pytest.mark.parametrize("wanted", [None, 3])
def test_few_arenas_unless_the_environment_says_otherwise(
    tmp_path: Path, wanted: int | None
) -> None:
    """By default, 64 threads have up to 8 per core, each with freed memory of its own."""
    env = os.environ | ({} if wanted is None else {"MALLOC_ARENA_MAX": str(wanted)})
    info = tmp_path / "info.xml"
    done = subprocess.run(
        [sys.executable, "-c", ARENAS, info], capture_output=True, text=True, check=True, env=env
    )
    assert done.stdout == "0.0005\n"
    arenas = info.read_text().count("<heap nr=")
    assert arenas == (wanted or 2 * (os.cpu_count() or 1))
