"""Versions made from a parent version without training: an update of the corpus and the users."""
