"""A servable: its signatures, what is inside the graph, and what is stored beside it."""
