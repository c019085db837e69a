"""A page to look at answers, versions and rollouts in a browser: `shortlist ui`."""
