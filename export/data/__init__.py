"""Reads interactions and catalogues into one form, whatever they are stored as."""
