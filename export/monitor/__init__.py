"""Quality of what was served: request logs joined with what users did next."""
