"""Verbs that compare trainings."""
