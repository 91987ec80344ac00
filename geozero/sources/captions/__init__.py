"""Captions: one file per data set."""
