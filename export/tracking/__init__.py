"""Experiment trackers: what they learn of published versions and their labels."""
