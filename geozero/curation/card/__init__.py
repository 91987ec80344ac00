"""The data card of a corpus, and a look at its samples."""
