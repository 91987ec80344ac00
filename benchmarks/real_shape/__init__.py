"""The GPU profile's own path with a model of the real widths, on a CPU."""
