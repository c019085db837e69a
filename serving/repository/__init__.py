"""The model repository: versions, the files in them, and the server configuration."""
