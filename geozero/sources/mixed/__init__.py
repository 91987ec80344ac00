"""Data sets of several tasks: one file per data set."""
