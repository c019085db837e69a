"""Indexes over candidate embeddings, all behind one interface."""
