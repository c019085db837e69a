"""Readers of interactions and catalogues by format, and synthetic data."""
