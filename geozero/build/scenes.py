"""Moved to `geozero.curation.tiling.scenes`; found here until the next minor version."""

from geozero.curation.tiling.scenes import Scene, Tile, open_scene, tiles

__all__ = ["Scene", "Tile", "open_scene", "tiles"]
