"""Closed forms for the time and memory of a partitioned Transformer, over arrays of points."""
