"""Recorded requests asked of two versions, and what users did after them."""
