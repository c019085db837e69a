"""TensorFlow Serving's messages under a proto package of our own.

Messages are told apart on the wire by field numbers and calls by path, so these are
the same bytes as `tensorflow-serving-api`'s, and both can live in one process. The
`*.proto` files here are the source; `python -m shortlist.clients.wire.generate` makes the rest.
Import the messages from `messages` and the calls from `methods`.
"""
