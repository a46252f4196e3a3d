"""Small programs that show what a schedule's time says: tabled against the datasheet, and run where a TPU is."""
