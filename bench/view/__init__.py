"""Pages, plots and the terminal's digest, from records alone."""
