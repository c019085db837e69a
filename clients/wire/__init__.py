"""TensorFlow Serving's messages under a proto package of our own."""
