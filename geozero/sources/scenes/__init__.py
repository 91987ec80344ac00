"""Scene classification: one file per data set."""
