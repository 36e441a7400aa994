"""The error of an alternative that does not load. This file imports nothing: see `jax_process.py`."""


class MissingError(Exception):
    """What an alternative is made of does not load here; the message says so in one line."""
