"""Thin REST and gRPC clients for retrieval models on TensorFlow Serving."""
