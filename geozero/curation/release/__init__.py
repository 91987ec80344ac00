"""The authors' release formats, written and read."""
