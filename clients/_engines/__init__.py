"""Carry out calls: sleep, send and gather, with threads or with asyncio."""
