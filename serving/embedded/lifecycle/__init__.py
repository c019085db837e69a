"""Which versions are served: watching, loading, unloading, labels."""
