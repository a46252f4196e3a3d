"""The arrays of the weights."""
