"""Answers of the server, the same for both transports."""
