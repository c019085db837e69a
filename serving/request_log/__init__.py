"""What request logs are good for: figures, warm-up records, queries, load and training data."""
