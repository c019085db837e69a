"""Search for settings that the validation part likes better."""
