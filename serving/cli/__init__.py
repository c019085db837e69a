"""Verbs on model servers, model repositories and rollouts."""
