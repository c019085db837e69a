"""Measures model servers: the embedded one, a TensorFlow Serving binary, any address."""
