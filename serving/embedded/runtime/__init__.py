"""Loads SavedModels and runs their signatures."""
