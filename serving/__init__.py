"""The model repository and the servers that serve it."""
