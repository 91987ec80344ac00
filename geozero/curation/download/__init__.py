"""Download: fetch the data sets that may be fetched, verify what arrived, and say how to get the others."""
