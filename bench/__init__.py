"""Measure batch norms: `pytest bench/ --benchmark-only` is the main job.

Behind the commands at the top are the rooms, and data crosses each once: `measure`, `session` and `record` make
records, `view` shows them, with the arithmetic of `stats`; `studies` answer questions with all of these.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""Of the repository."""
