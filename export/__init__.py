"""Trains two-tower retrieval models and publishes them as versioned SavedModels."""
