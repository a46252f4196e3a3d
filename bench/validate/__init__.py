"""An estimator against measured times."""
