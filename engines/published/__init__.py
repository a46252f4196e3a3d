"""Published measurements of others, looked up and never interpolated."""
