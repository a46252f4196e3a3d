"""Two stores, and nights."""
