"""What this machine has for Shortlist, and what is wrong with it."""
