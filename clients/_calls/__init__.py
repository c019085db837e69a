"""Flows: requests, retries and answers of each call, without input or output."""
