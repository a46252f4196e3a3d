"""Programs of others as rows: ``shardbench estimate``."""
