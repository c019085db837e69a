"""SavedModels: loading, running, batching."""
