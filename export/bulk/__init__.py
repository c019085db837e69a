"""Lists for many users or candidates at once, from a servable in the same process."""
