"""GeoZero: teach vision-language models to reason about remote sensing images without hand-written reasoning."""

__version__ = "0.1.0"
