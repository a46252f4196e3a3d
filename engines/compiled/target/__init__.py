"""Chips described to their compiler."""
