"""The clients against a real server; see `conftest.py` for which."""
