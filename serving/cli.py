"""Verbs that `serving` adds to the `shortlist` command."""

import argparse

__all__ = ["add_commands"]


def add_commands(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds this package's verbs; imports nothing heavy."""
