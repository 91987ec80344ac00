"""From data sets to corpora: ingest one, merge several into GeoZero-Raw without leaks, release the result."""
