"""The report of a training: one HTML file that explains it to people who did not train it."""
