"""Measures model servers: the embedded server, a TensorFlow Serving binary or any address."""
