"""Compiling, and what was compiled on disk."""
