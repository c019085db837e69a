"""Request logs: rotating files of TensorFlow Serving's `PredictionLog`, written and read."""
