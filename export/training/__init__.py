"""Recipes that train the two towers."""
