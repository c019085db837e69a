"""Measures what the clients cost."""
