"""What tests are made of, written once: points, rows, models, plans."""
