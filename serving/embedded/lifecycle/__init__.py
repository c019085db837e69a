"""Which versions are loaded, and how they come and go."""
