"""How long the instructions of a schedule take."""
