"""Measure batch norms: `pytest bench/ --benchmark-only` is the main job."""
