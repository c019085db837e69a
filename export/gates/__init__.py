"""Gates that a saved version must pass before any server sees it."""
