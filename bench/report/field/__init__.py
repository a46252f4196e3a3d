"""The field: every system and method that the paper names, beside each other on the same chips."""
