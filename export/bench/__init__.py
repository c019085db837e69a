"""Measures the indexes side by side."""
