"""Layers of which something waits in host memory or in a file: their weights, their keys and values, or both."""
