"""Versions to serve: watching, loading, unloading, labels."""
