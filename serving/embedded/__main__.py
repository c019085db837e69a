"""`python -m shortlist.serving.embedded FLAGS`."""

import os
import sys

from shortlist.serving.embedded.process import main

if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # A failed start can leave threads in the middle of a load: do not wait for them.
    os._exit(status)
