"""Benchmarks of indexes, exports, training and recipes."""
