"""`python -m serving.bench`: the same as `shortlist bench server`."""

import sys

from serving.bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
