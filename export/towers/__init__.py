"""Query and candidate towers, and what training leaves behind."""
