"""`python -m shortlist.serving.bench`: the same as `shortlist bench server`."""

import sys

from shortlist.serving.bench.command import main

if __name__ == "__main__":
    sys.exit(main())
