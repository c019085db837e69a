"""Clients for a corpus that is divided over several servables."""
