"""GeoZero-Raw: corpora merged without repetitions, and without images of the evaluation sets."""
