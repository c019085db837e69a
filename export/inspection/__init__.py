"""What data would be trained on, and what is wrong with it, without training."""
