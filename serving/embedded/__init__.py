"""SavedModels behind TensorFlow Serving's API in one Python process."""
