"""A composed config to points."""
