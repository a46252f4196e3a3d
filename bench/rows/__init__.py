"""Rows: metrics, the store, tables."""
