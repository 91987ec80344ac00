"""What the server engine needs to know of a server: its model, its limits, how to ask it and what it means."""
