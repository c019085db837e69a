"""The whole road, as a user walks it: the command in processes of its own."""
