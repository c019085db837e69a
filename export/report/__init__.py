"""Report of a training as one HTML file, for readers who did not train the model."""
