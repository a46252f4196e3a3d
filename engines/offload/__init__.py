"""Layers whose weights wait outside the device: in host memory, or in a file, and come one ahead of the computation."""
