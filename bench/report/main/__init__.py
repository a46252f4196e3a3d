"""The report of a store."""
