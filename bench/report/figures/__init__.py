"""The report's figures, one module a family. matplotlib is imported only when one is drawn."""
