"""The page of a run, and its tables and plots as files."""
