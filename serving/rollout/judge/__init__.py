"""Judge a canary against stable, by tests that can be stopped at any time."""
