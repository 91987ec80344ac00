"""Adaptive sampling: stop asking about a sample once its decision is clear."""
