"""The toy world: scenes, drawn and written to disk in the layouts of real data sets."""
