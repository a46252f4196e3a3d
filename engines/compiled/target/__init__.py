"""Devices described to their compiler."""
