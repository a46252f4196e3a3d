"""Reading scheduled HLO."""
