"""This machine: programs run to their end on it, and the GPUs that it has."""
