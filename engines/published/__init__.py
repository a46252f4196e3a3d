"""Rows that others measured and published, looked up and never interpolated."""
