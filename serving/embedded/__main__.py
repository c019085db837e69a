"""`python -m shortlist.serving.embedded FLAGS`."""

import ctypes
import os
import resource
import sys
from typing import Final

from shortlist.serving.embedded.process import main

_NO_NEW_PRIVILEGES: Final = 38  # PR_SET_NO_NEW_PRIVS
_MOST_FILES: Final = 2**20  # some engines set a hard limit of a billion


def prepare_process() -> None:
    """Give up rights that are never needed, and take as many open files as are allowed.

    From then on, no program that this process starts can have more rights than it has itself.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
            reason = os.strerror(ctypes.get_errno())
            sys.stderr.write(f"new privileges cannot be given up (no_new_privs): {reason}\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


if __name__ == "__main__":
    prepare_process()
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # A failed start can leave threads in the middle of a load: do not wait for them.
    os._exit(status)
