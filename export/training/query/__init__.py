"""How queries are computed from histories: parts, their settings, and the whole tower."""
