"""Imports results of other benchmark harnesses as rows: one module per format."""
