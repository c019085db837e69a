"""Requests and answers as JSON and as messages, and the tensors in them."""
