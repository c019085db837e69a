"""TensorFlow Serving's messages under a proto package of our own.

Field numbers identify fields on the wire and paths identify calls, so the bytes are those of
`tensorflow-serving-api`, and both can be used in one process. The `*.proto` files are the source;
`python -m shortlist.clients.wire.generate` generates the rest. Import the messages from
`messages` and the calls from `methods`.
"""
