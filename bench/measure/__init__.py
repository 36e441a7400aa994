"""Pure measurements: from an implementation and a context to figures."""
