"""Commands that change the corpus of a model without training."""
