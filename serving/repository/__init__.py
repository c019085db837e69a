"""The model repository: its versions, what they carry, and the server configuration."""
