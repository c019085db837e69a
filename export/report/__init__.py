"""The report of a training: one HTML file that explains it to those who did not train it."""
