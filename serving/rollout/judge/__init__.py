"""Judges a canary beside stable, by tests that may be stopped at any time."""
