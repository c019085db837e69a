"""How good a model is: held-out interactions, metrics, and baselines to compare with."""
