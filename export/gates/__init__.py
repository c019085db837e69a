"""Gates between a saved version and the servers: what must hold before anybody can see it."""
