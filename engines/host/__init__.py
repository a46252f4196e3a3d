"""This machine: its GPUs, and external programs that run on it."""
