"""The protocols `official` and `strict`, and the metrics that they are made of."""
