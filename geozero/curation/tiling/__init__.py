"""Large scenes cut into tiles."""
