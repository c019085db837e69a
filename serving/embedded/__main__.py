"""`python -m shortlist.serving.embedded FLAGS`."""

import ctypes
import os
import resource
import sys
from typing import Final

from shortlist.serving.embedded.process import main

_NO_NEW_PRIVILEGES: Final = 38  # PR_SET_NO_NEW_PRIVS
_MOST_FILES: Final = 2**20  # some engines set a hard limit of a billion
# A thread in a long Python loop, such as parsing malformed JSON, makes each step of other
# requests wait for this time; a request has dozens. Python's default is 0.005.
_SWITCH_SECONDS: Final = 0.0005
_ARENAS_PER_CORE: Final = 2
# Parameters of mallopt, names in the environment and as tunables, and values. By default, hundreds
# of threads share 8 arenas per core, and each keeps up to 64 MiB that large requests have freed.
_MALLOC: Final = (
    (-8, "MALLOC_ARENA_MAX", "glibc.malloc.arena_max", _ARENAS_PER_CORE * (os.cpu_count() or 1)),
    (-1, "MALLOC_TRIM_THRESHOLD_", "glibc.malloc.trim_threshold", 4 * 2**20),
    (-3, "MALLOC_MMAP_THRESHOLD_", "glibc.malloc.mmap_threshold", 2**20),
)


def prepare_process() -> None:
    """Set what applies to the whole process.

    Gives up rights that are never needed: no program that this process starts can have more
    rights than it has itself. Takes as many open files as are allowed, lets threads take turns
    more often, and returns freed memory to the system.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
            reason = os.strerror(ctypes.get_errno())
            sys.stderr.write(f"new privileges cannot be given up (no_new_privs): {reason}\n")
        if hasattr(libc, "mallopt"):  # glibc
            _limit_free_memory(libc)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _limit_free_memory(libc: ctypes.CDLL) -> None:
    """Bound the freed memory that the allocator keeps, unless the environment does."""
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    for parameter, variable, tunable, value in _MALLOC:
        if variable not in os.environ and tunable not in tunables:
            libc.mallopt(parameter, value)


if __name__ == "__main__":
    prepare_process()
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # A failed start can leave threads in the middle of a load: do not wait for them.
    os._exit(status)
