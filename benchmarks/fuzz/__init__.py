"""Hostile input for every reader: `python -m benchmarks.fuzz --inputs N --seed S`."""
