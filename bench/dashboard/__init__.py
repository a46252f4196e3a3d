"""Stored rows as a static site that opens from disk."""
