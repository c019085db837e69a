"""`python -m shortlist.serving.embedded FLAGS`."""

import os
import sys

from shortlist.serving.embedded.process import main

if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # A failed start can leave threads in the middle of a load; waiting for TensorFlow to
    # let go of them is of no use to anybody.
    os._exit(status)
