"""Stored rows over time as one page of HTML that needs nothing else."""
