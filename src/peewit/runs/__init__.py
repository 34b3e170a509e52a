"""A training's folder on disk, and the object over it."""
