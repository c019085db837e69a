"""Towers and embeddings from elsewhere, as servables."""
