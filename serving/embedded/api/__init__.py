"""What the server answers, whatever transport a request came by."""
