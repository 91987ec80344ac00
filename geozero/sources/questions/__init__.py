"""Visual question answering: one file per data set."""
