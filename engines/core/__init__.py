"""The vocabulary that all engines and the harness share."""
