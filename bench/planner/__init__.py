"""Which partitioning to run: every way to cut a model over chips, predicted at once, and the best of them."""
