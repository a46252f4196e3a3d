"""Scheduled HLO, read."""
