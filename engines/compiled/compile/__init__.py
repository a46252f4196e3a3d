"""Compiling programs, and the cache of compiled programs on disk."""
