"""Starts and stops a TensorFlow Serving container, binary, or the embedded server."""
