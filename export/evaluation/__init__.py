"""Evaluation on held-out interactions: metrics, and baselines to compare with."""
