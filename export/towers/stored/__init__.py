"""Towers of a published version, read back from its checkpoint."""
