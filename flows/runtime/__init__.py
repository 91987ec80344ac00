"""What the flows share: retries, tracking, progress, parameters of a run."""
