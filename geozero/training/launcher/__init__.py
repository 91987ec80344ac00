"""Start the process that trains, watch over it, and start it again."""
