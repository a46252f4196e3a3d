"""Padded against packed prompts of different lengths: what padding costs."""
