"""From pass rates to GeoZero-Instruct and GeoZero-Hard."""
