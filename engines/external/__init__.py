"""External inference programs, run as a whole where they are installed."""
