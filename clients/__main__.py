"""`python -m clients` is the `shortlist` command."""

import sys

from clients.cli import main

sys.exit(main())
