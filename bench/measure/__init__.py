"""Timing of programs and statistics of the samples."""
