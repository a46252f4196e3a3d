"""Values between chips."""
