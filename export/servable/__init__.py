"""Servables: signatures, contents of the graph, and files stored alongside it."""
