"""Weights: random by seed, or from a checkpoint."""
