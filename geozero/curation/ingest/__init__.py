"""Ingest: a data set becomes a corpus."""
