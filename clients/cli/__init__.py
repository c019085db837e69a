"""The `shortlist` command, and the verbs that ask a model server."""
