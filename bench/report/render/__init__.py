"""Documents, LaTeX, figure style."""
