"""Visual grounding: one file per data set."""
