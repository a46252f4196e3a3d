"""Weights of a pruned model: which parts stay, and their values out of those of the whole model."""
