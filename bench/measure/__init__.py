"""Timing a program, and what its samples say."""
