"""Verbs that train, measure and publish."""
