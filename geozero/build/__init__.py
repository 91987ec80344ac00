"""From data sets to corpora: ingest one, join several into GeoZero-Raw without leaks, look at what came out."""
