"""`python -m shortlist` is the `shortlist` command."""

import sys

from shortlist.clients.cli.main import main

sys.exit(main())
