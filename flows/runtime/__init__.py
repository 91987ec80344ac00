"""Shared by the flows: retries, tracking, progress, parameters of a run."""
