"""Moved to `geozero.curation`; only `geozero.build.scenes` is still found here, until the next minor version."""
