"""Rollouts: moves of labels and versions on running servers that never take the service down."""
