"""Benchmarks: `python -m benchmarks.NAME` times one part of GeoZero beside what the field uses for it."""
